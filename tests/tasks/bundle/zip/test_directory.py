"""The end of a ZIP alone tells how many files it lists."""

import random

import pytest

from tasks.bundle.zip.directory import count_files
from tests.zips import Raw, forged, streamed_zip_of, wide_zip_of, zip_of

FILES = {"folder/": b"", "folder/front.jpg": b"front" * 99, "back.jpg": b"back" * 99, "empty": b""}


@pytest.mark.parametrize("write", [zip_of, streamed_zip_of])
def test_the_end_of_a_zip_tells_how_many_files_it_lists(write: type) -> None:
    data = write(FILES)
    assert count_files(data) == 3
    directory = data.index(b"PK\1\2")
    assert count_files(data[directory:]) == 3
    assert count_files(data[directory + 1 :]) is None


def test_the_end_of_other_zips_tells_it_as_well() -> None:
    assert count_files(zip_of({})) == 0
    assert count_files(zip_of({"a": b"1"}, comment=b"of the whole")) == 1
    assert count_files(wide_zip_of({"a": b"1", "b": b"2"})) == 2
    many = zip_of({str(number): b"" for number in range(70_000)})  # more than an end record without Zip64 can count
    assert count_files(many) == 70_000


def test_padding_around_a_zip_does_not_change_how_many_files_it_lists() -> None:
    assert count_files(b"\n" + zip_of(FILES) + bytes(10_000)) == 3


def test_folders_of_every_sort_do_not_count() -> None:
    assert count_files(forged(Raw(content=b"", attributes=0x10), Raw(name=b"a\\", content=b""), Raw())) == 1


@pytest.mark.parametrize("cut", [1, 10, 30])
def test_an_end_that_is_cut_off_tells_nothing(cut: int) -> None:
    assert count_files(zip_of(FILES)[:-cut]) is None


def test_an_end_that_is_damaged_tells_nothing_and_does_no_harm() -> None:
    dice, data = random.Random(7), zip_of(FILES)  # noqa: S311  # no secret
    for _ in range(2_000):
        damaged = bytearray(data)
        for _ in range(dice.randint(1, 4)):
            damaged[dice.randrange(data.index(b"PK\1\2"), len(data))] = dice.randrange(256)
        found = count_files(bytes(damaged))
        assert found is None or 0 <= found <= 4
    assert count_files(b"") is None
