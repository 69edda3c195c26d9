"""Documents that other readers can read are read, whatever headers their writer produced."""

import stat
import struct
import subprocess
import tracemalloc
from pathlib import Path

import pytest

from tasks.bundle.zip import BadZip, Limits, Unpacked, read_zip
from tests.zips import FAT, UNIX, Raw, forged

CONTENT = b"some content"
UNICODE_PATH = struct.pack("<2HBL", 0x7075, 6, 1, 0) + b"x"


def read_members(*members: Raw) -> Unpacked:
    return read_zip(forged(*members), Limits())


def contents(unpacked: Unpacked) -> list[tuple[str, bytes]]:
    assert not unpacked.unreadable
    return [(member.name, bytes(member.data)) for member in unpacked.members]


def names_are_refused(data: bytes, max_name_bytes: int) -> bool:
    try:
        return not read_zip(data, Limits(max_name_bytes=max_name_bytes))
    except BadZip as error:
        return error.cause == "names_too_large"


@pytest.mark.parametrize(
    ("local", "central", "length"),
    [(b"", b"", 10), (b"", UNICODE_PATH, 16), (UNICODE_PATH, b"", 16), (UNICODE_PATH, UNICODE_PATH, 22)],
)
def test_names_of_all_entries_count_towards_one_limit(local: bytes, central: bytes, length: int) -> None:
    members = [Raw(local={"extra": local}, central={"extra": central}), Raw(name=b"b/c/\\", content=b"")]
    data = forged(*members)

    assert not names_are_refused(data, length)
    assert names_are_refused(data, length - 1)


def test_too_many_long_names_are_refused_before_they_are_in_memory() -> None:
    data = forged(*(Raw(name=b"%05d" % number + b"n" * 60_000, content=b"") for number in range(200)))

    tracemalloc.start()
    try:
        assert names_are_refused(data, Limits().max_name_bytes)
        assert tracemalloc.get_traced_memory()[1] < 3 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("made_by", [FAT, UNIX])
@pytest.mark.parametrize(
    "kind", [stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFSOCK, stat.S_IFDIR, stat.S_IFREG, 0o070000, 0]
)
def test_a_member_with_content_is_a_document_whatever_its_mode(kind: int, made_by: int) -> None:
    assert contents(read_members(Raw(attributes=(kind | 0o644) << 16, central={"made_by": made_by}))) == [
        ("a.txt", CONTENT)
    ]


@pytest.mark.needs("zip")
def test_a_member_that_was_read_from_a_pipe_is_a_document(tmp_path: Path) -> None:
    piped = subprocess.run(["zip", "-", "-"], cwd=tmp_path, input=CONTENT, check=True, capture_output=True)  # noqa: S607
    assert contents(read_zip(piped.stdout, Limits())) == [("-", CONTENT)]


@pytest.mark.parametrize("made_by", [FAT, UNIX])
@pytest.mark.parametrize(
    ("name", "attributes"),
    [
        (b"folder/", 0),
        (b"folder\\", 0),
        (b"folder", 0x10),
        (b"folder", stat.S_IFDIR << 16),
        (b"folder\\", stat.S_IFREG << 16),
    ],
)
def test_a_folder_is_not_a_document_however_it_is_marked(name: bytes, attributes: int, made_by: int) -> None:
    folder = Raw(name=name, content=b"", attributes=attributes, central={"made_by": made_by})
    assert read_members(folder) == Unpacked((), ())


@pytest.mark.parametrize(("name", "attributes"), [(b"a\\", 0), (b"a", 0x10), (b"a", 0x10 | stat.S_IFREG << 16)])
def test_content_is_kept_if_readers_disagree_whether_the_entry_is_a_folder(name: bytes, attributes: int) -> None:
    assert contents(read_members(Raw(name=name, attributes=attributes))) == [(name.decode(), CONTENT)]


def test_an_empty_file_with_the_unix_mode_of_a_file_is_not_a_folder() -> None:
    assert contents(read_members(Raw(content=b"", attributes=0x10 | stat.S_IFREG << 16))) == [("a.txt", b"")]
