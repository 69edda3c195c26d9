"""Read the names of a member from its header and from Info-ZIP's Unicode Path (APPNOTE 4.6.9)."""

import struct
from dataclasses import dataclass
from zlib import crc32

from tasks.bundle.zip.directory import UTF8_NAME, ZipEntry

_FAT = 0
_VERSION = 1
_VERSION_AND_CRC = struct.Struct("<BL")

# Each byte that is not valid UTF-8 becomes a private use character, U+EF80 to U+EFFF. If a name contains these
# characters itself, their bytes are converted as well, so the mapping is reversible. Python's lone surrogates would
# not be valid in JSON.
_KEPT_BYTE = 0xEF00
_KEPT_BYTES = {0xDC00 + byte: chr(_KEPT_BYTE + byte) for byte in range(0x80, 0x100)} | {
    code: "".join(chr(_KEPT_BYTE + byte) for byte in chr(code).encode())
    for code in range(_KEPT_BYTE + 0x80, _KEPT_BYTE + 0x100)
}


@dataclass(frozen=True, slots=True)
class Name:
    """The decoded name of a member.

    Attributes:
        text: the name; never use it as a path, because it may contain ``../``, NUL or 10,000 characters. A byte *b*
            that is not valid UTF-8 is the character U+EF00 + *b*. No byte is lost, and the name is valid in JSON.
        encoding: how the name was decoded: ``utf-8`` if declared, ``assumed-utf-8`` if no other encoding is likely,
            ``cp437``, or ``unicode-path``; None if it is ASCII, which reads the same in all of them.
        in_header: the name in the header, for readers that do not support Unicode Paths.
        others: the names that other readers give the member, if it is unclear which name is right.
    """

    text: str
    encoding: str | None
    in_header: str
    others: tuple[str, ...] = ()


def read_name(entry: ZipEntry) -> Name:
    """Return the name of an entry from a valid Unicode Path, or else from its header.

    Readers differ about some Unicode Paths, so their names are returned as conflicts (``others``). This applies to a
    second path, an invalid path, and a path that contradicts a declared name, the other header or the member type.
    """
    text, encoding = _decode_header(entry)
    central = [_decode_path(path, entry.name) for path in entry.unicode_paths]
    local = [_decode_path(path, entry.name) for path in entry.local_unicode_paths]
    found = central[0] if central else text
    is_clear = (
        len(central) <= 1
        and local in ([], [found])
        and (found == text or not entry.flags & UTF8_NAME)
        and text.endswith("/") == (found or "").endswith("/")
    )
    if found is None or not is_clear:
        paths = (*entry.unicode_paths, *entry.local_unicode_paths)
        others = dict.fromkeys(_decode_utf8(path[_VERSION_AND_CRC.size :]) for path in paths)
        return Name(text, encoding, text, tuple(others))
    return Name(found, encoding if found == text else "unicode-path", text)


def _decode_header(entry: ZipEntry) -> tuple[str, str | None]:
    if entry.name.isascii():
        return entry.name.decode("ascii"), None
    if entry.flags & UTF8_NAME:
        return _decode_utf8(entry.name), "utf-8"
    if entry.host != _FAT and _is_utf8(entry.name):
        return _decode_utf8(entry.name), "assumed-utf-8"
    return entry.name.decode("cp437"), "cp437"


def _decode_path(path: bytes, name: bytes) -> str | None:
    """Return the name in a Unicode Path; None if the path is invalid or does not belong to the name in the header."""
    text = path[_VERSION_AND_CRC.size :]
    is_valid = (
        path.startswith(_VERSION_AND_CRC.pack(_VERSION, crc32(name))) and text and b"\0" not in text and _is_utf8(text)
    )
    return _decode_utf8(text) if is_valid else None


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _decode_utf8(text: bytes) -> str:
    return text.decode("utf-8", "surrogateescape").translate(_KEPT_BYTES)
