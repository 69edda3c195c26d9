"""Distinguish text from binary data, piece by piece, so that a large document is never copied as a whole."""

import codecs
import re
from collections.abc import Iterator

from tasks.memory.buffer_pool import Buffer

_PIECE = 1 << 16
_CONTROLS = bytes((set(range(0x20)) - set(b"\t\n\r\f")) | {0x7F})
_NOT_WINDOWS_1252 = _CONTROLS + b"\x81\x8d\x8f\x90\x9d"
_NOT_ASCII = bytes(range(0x80, 0x100))
_NOT_TEXT = re.compile("[\0-\x08\x0b\x0e-\x1f\x7f-\x9f\ufdd0-\ufdef\ufffe\uffff]")
_BYTE_ORDER_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def is_utf8(data: Buffer) -> bool:
    """Return whether all bytes are UTF-8 without control characters; most images fail at the first byte."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for piece in _pieces(data):
            decoder.decode(piece)
            if len(piece.translate(None, _CONTROLS)) < len(piece):
                return False
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return len(data) > 0


def may_be_text(data: Buffer) -> bool:
    """Return whether the bytes look like UTF-16 or Windows-1252; without a byte order mark, this is a guess."""
    if bytes(data[:2]) in _BYTE_ORDER_MARKS:
        return _is_utf16(data, "utf-16")
    # In binary data, two thirds of the characters are seldom Latin letters.
    guesses = ("utf-16-le", "utf-16-be")
    return _is_windows_1252(data) or any(_is_utf16(data, each, least_latin=2 / 3) for each in guesses)


def _is_windows_1252(data: Buffer) -> bool:
    """Return whether all bytes are defined, none is a control character, and at least half are ASCII."""
    ascii_bytes = 0
    for piece in _pieces(data):
        if len(piece.translate(None, _NOT_WINDOWS_1252)) < len(piece):
            return False
        ascii_bytes += len(piece.translate(None, _NOT_ASCII))
    return 0 < len(data) <= 2 * ascii_bytes


def _is_utf16(data: Buffer, encoding: str, *, least_latin: float = 0.0) -> bool:
    decoder = codecs.getincrementaldecoder(encoding)()
    latin_letters = 0
    try:
        for piece in _pieces(data):
            text = decoder.decode(piece)
            if _NOT_TEXT.search(text):
                return False
            latin_letters += len(text.encode("latin-1", "ignore"))
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return len(data) > 0 and latin_letters >= least_latin * len(data) / 2


def _pieces(data: Buffer) -> Iterator[bytes]:
    return (bytes(data[at : at + _PIECE]) for at in range(0, len(data), _PIECE))
