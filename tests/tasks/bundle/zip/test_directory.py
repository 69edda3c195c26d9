"""The end of a ZIP is enough to count the files that it lists."""

import random

import pytest

from tasks.bundle.zip.directory import count_files
from tests.zips import Raw, forged, streamed_zip_of, wide_zip_of, zip_of

FILES = {"folder/": b"", "folder/front.jpg": b"front" * 99, "back.jpg": b"back" * 99, "empty": b""}


@pytest.mark.parametrize("write", [zip_of, streamed_zip_of])
def test_files_are_counted_from_the_end_of_a_zip(write: type) -> None:
    data = write(FILES)
    assert count_files(data) == 3
    directory = data.index(b"PK\1\2")
    assert count_files(data[directory:]) == 3
    assert count_files(data[directory + 1 :]) is None


def test_files_are_counted_in_empty_commented_and_zip64_zips() -> None:
    assert count_files(zip_of({})) == 0
    assert count_files(zip_of({"a": b"1"}, comment=b"of the whole")) == 1
    assert count_files(wide_zip_of({"a": b"1", "b": b"2"})) == 2
    many = zip_of({str(number): b"" for number in range(70_000)})  # more than an end record without Zip64 can count
    assert count_files(many) == 70_000


def test_padding_around_a_zip_does_not_change_the_count_of_files() -> None:
    assert count_files(b"\n" + zip_of(FILES) + bytes(10_000)) == 3


def test_folders_are_not_counted_however_they_are_marked() -> None:
    assert count_files(forged(Raw(content=b"", attributes=0x10), Raw(name=b"a\\", content=b""), Raw())) == 1


@pytest.mark.parametrize("cut", [1, 10, 30])
def test_the_count_of_files_is_none_if_the_end_is_cut_off(cut: int) -> None:
    assert count_files(zip_of(FILES)[:-cut]) is None


def test_the_count_of_files_is_none_or_plausible_if_the_end_is_damaged() -> None:
    rng, data = random.Random(7), zip_of(FILES)  # noqa: S311  # no secret
    for _ in range(2_000):
        damaged = bytearray(data)
        for _ in range(rng.randint(1, 4)):
            damaged[rng.randrange(data.index(b"PK\1\2"), len(data))] = rng.randrange(256)
        found = count_files(bytes(damaged))
        assert found is None or 0 <= found <= 4
    assert count_files(b"") is None
