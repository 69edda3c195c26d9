import struct
import zlib
from collections.abc import Callable

import pytest

from tasks.bundle.zip import Limits, Member, read_zip
from tests.zips import FAT, UNIX, Raw, forged

NAME = b"case_attachments/F_hrerschein.pdf"
TRUE = "case_attachments/Führerschein.pdf"
UTF8 = 1 << 11
NTFS = 10 << 8 | 20


def unicode_path(text: str | bytes, name: bytes = NAME, version: int = 1) -> bytes:
    content = struct.pack("<BL", version, zlib.crc32(name)) + (text if isinstance(text, bytes) else text.encode())
    return struct.pack("<2H", 0x7075, len(content)) + content


def read(member: Raw) -> Member:
    unpacked = read_zip(forged(member), Limits())
    assert not unpacked.unreadable
    (found,) = unpacked.members
    assert found.data == member.content
    return found


def named(central: bytes = b"", local: bytes = b"", name: bytes = NAME, flags: int = 0) -> Member:
    return read(Raw(name=name, flags=flags, central={"extra": central}, local={"extra": local}))


# The name in the header


@pytest.mark.parametrize("made_by", [UNIX, NTFS, 19 << 8])
def test_an_undeclared_utf8_name_is_read_as_utf8_unless_dos_wrote_it(made_by: int) -> None:
    def found(host: int) -> tuple[str, str | None]:
        member = read(Raw(name="Führerschein.pdf".encode(), central={"made_by": host}))
        return member.name, member.name_encoding

    assert found(made_by) == ("Führerschein.pdf", "assumed-utf-8")
    assert found(FAT) == ("F├╝hrerschein.pdf", "cp437")


def test_a_name_that_is_not_utf8_is_read_as_cp437() -> None:
    member = read(Raw(name=b"F\x81hrerschein.pdf", central={"made_by": UNIX}))
    assert (member.name, member.name_encoding) == ("Führerschein.pdf", "cp437")


def test_a_name_that_is_declared_as_utf8_is_read_as_utf8() -> None:
    member = read(Raw(name="ü\ufffd".encode() + b"\xff", flags=UTF8))
    assert (member.name, member.name_encoding) == ("ü\ufffd\uefff", "utf-8")


@pytest.mark.parametrize("flags", [0, UTF8])
def test_an_ascii_name_is_the_same_in_every_encoding(flags: int) -> None:
    assert read(Raw(flags=flags)).name_encoding is None


# The name in the Unicode Path


@pytest.mark.parametrize("fields", [lambda field: (field, field), lambda field: (field, b"")])
@pytest.mark.parametrize("around", [lambda field: field, lambda field: b"UT\1\0x" + field + b"\1"])
def test_a_valid_unicode_path_gives_the_name(
    fields: Callable[[bytes], tuple[bytes, bytes]], around: Callable[[bytes], bytes]
) -> None:
    member = named(*fields(around(unicode_path(TRUE))))
    assert (member.name, member.name_encoding, member.header_name) == (TRUE, "unicode-path", NAME.decode())
    assert member.other_names == ()


@pytest.mark.parametrize("flags", [0, UTF8])
def test_a_unicode_path_equal_to_the_header_name_changes_nothing(flags: int) -> None:
    name = TRUE.encode()
    field = unicode_path(TRUE, name)
    member = named(field, field, name, flags)
    assert (member.name, member.header_name, member.other_names) == (TRUE, None, ())
    assert member.name_encoding == ("utf-8" if flags else "assumed-utf-8")


@pytest.mark.parametrize(
    ("central", "local", "others"),
    [
        pytest.param(unicode_path(TRUE) + unicode_path("b"), b"", (TRUE, "b"), id="two"),
        pytest.param(unicode_path(TRUE) * 2, b"", (TRUE,), id="the same twice"),
        pytest.param(unicode_path(TRUE), unicode_path(TRUE) * 2, (TRUE,), id="twice in the local header"),
        pytest.param(unicode_path(TRUE), unicode_path("b"), (TRUE, "b"), id="another in the local header"),
        pytest.param(b"", unicode_path("b"), ("b",), id="in the local header only"),
        pytest.param(unicode_path(TRUE, b"old"), b"", (TRUE,), id="of another header name"),
        pytest.param(unicode_path(TRUE, version=2), b"", (TRUE,), id="of another version"),
        pytest.param(unicode_path(b"b\xff"), b"", ("b\uefff",), id="not UTF-8"),
        pytest.param(unicode_path(b"b\0c"), b"", ("b\0c",), id="with NUL"),
        pytest.param(unicode_path(""), b"", ("",), id="empty"),
        pytest.param(struct.pack("<2H", 0x7075, 3) + b"abc", b"", ("",), id="short"),
        pytest.param(unicode_path(TRUE)[:-1], b"", ("",), id="cut short"),
        pytest.param(unicode_path("case_attachments/"), b"", ("case_attachments/",), id="of a folder"),
    ],
)
def test_a_unicode_path_that_readers_interpret_differently_is_a_conflict(
    central: bytes, local: bytes, others: tuple[str, ...]
) -> None:
    member = named(central, local)
    assert (member.name, member.name_encoding, member.header_name) == (NAME.decode(), None, None)
    assert member.other_names == others


def test_a_unicode_path_that_contradicts_a_declared_name_is_a_conflict() -> None:
    member = named(unicode_path(TRUE), unicode_path(TRUE), flags=UTF8)
    assert (member.name, member.other_names) == (NAME.decode(), (TRUE,))


def test_content_under_the_name_of_a_folder_is_kept_if_a_unicode_path_names_a_file() -> None:
    member = named(unicode_path("file", b"folder/"), name=b"folder/")
    assert (member.name, member.other_names) == ("folder/", ("file",))


def test_a_folder_whose_names_are_in_conflict_is_not_a_document() -> None:
    folder = Raw(name=b"folder/", content=b"", central={"extra": unicode_path("b/", b"old/")})
    assert read_zip(forged(folder), Limits()).members == ()
