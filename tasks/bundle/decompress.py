"""From compressed to real bytes: one member's content, piece by piece.

Deflate goes through isal, which takes two thirds of zlib's time on photographs; bzip2, LZMA and XZ through the
standard library, Zstandard through what is Python 3.14's. All decoders speak the same protocol, so one loop serves
them.
"""

import bz2
import lzma
import struct
import sys
from collections.abc import Iterator
from itertools import chain
from typing import Protocol

from isal import igzip_lib

from tasks.bundle.zip_directory import ENCRYPTED, LZMA_END_MARK, STRONGLY_ENCRYPTED, ZipEntry
from tasks.memory.buffer_pool import Buffer
from tasks.memory.spool import chunks

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

MAX_PIECE = 1 << 18
"""Bytes that go into a decoder at a time: most photographs are one, for each costs the interpreter three times."""

CHUNK = 1 << 18
"""Bytes that come out of it at a time, at most; by no more is a budget ever overstepped."""

QUICK_METHODS = (0, 8)
"""Stored and Deflate: a megabyte of content takes no more than some milliseconds."""

# APPNOTE 4.4.5; the names are for the person who has to find a program that reads them.
_OTHER_METHODS = {1: "Shrink", 6: "Implode", 9: "Deflate64", 98: "PPMd"}
_PATCHED = 1 << 5

_LZMA_PROPERTIES = 5
_LZMA_VERSION_AND_LENGTH = struct.Struct("<2xH")
_LZMA_MEMORY = 128 << 20  # bytes; twice what the highest presets of xz and 7-Zip ask of a reader
_ZSTD_WINDOW = 27  # as a power of two: 128 MiB, the most that Zstandard's own program takes without being told to
_UNKNOWN_SIZE = 0xFFFF_FFFF_FFFF_FFFF

# All that the decoders raise about damaged data; bz2 has no exception of its own and raises OSError.
_ISAL_ERROR: type[Exception] = igzip_lib.IsalError  # type: ignore[assignment]  # its stubs say an instance
_DECODER_ERRORS = (_ISAL_ERROR, lzma.LZMAError, zstd.ZstdError, OSError, EOFError)


class MemberError(Exception):
    """One member cannot be read; the others may be.

    Args:
        cause: a short fixed word.
        why: one sentence for a person; never the member's name.
    """

    def __init__(self, cause: str, why: str) -> None:
        super().__init__(cause, why)
        self.cause, self.why = cause, why

    def __str__(self) -> str:
        return self.why


class _Decoder(Protocol):
    """What the incremental decoders of isal, bz2 and lzma have in common."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: Buffer, max_length: int) -> bytes: ...


def decompress(data: Buffer, entry: ZipEntry) -> Iterator[Buffer]:
    """Yield the content of a member in chunks of at most ``CHUNK`` bytes.

    Whether size and CRC are as promised is for the caller to compare; that the compressed data ends
    exactly where the entry says is checked here.

    Raises:
        MemberError: the data is damaged, ends too early or too late, is encrypted, or is compressed by a
            method that we do not read.
    """
    if entry.flags & (ENCRYPTED | STRONGLY_ENCRYPTED):
        raise MemberError("encrypted", "it is encrypted")
    if entry.flags & _PATCHED:
        raise MemberError("unsupported_method", "it is a patch to a file that is not here")
    packed = chunks(data, entry.data_offset, entry.data_end, MAX_PIECE)
    match entry.method:
        case 0:
            return packed
        case 8:
            return _decoded(igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_DEFLATE), packed)
        case 12:
            return _decoded(bz2.BZ2Decompressor(), packed)
        case 14:
            return _lzma(data, entry)
        case 93:
            decoder = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: _ZSTD_WINDOW})
            return _decoded(decoder, packed)
        case 95:
            return _decoded(lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_LZMA_MEMORY), packed)
        case other:
            name = _OTHER_METHODS.get(other, "unknown to us")
            raise MemberError("unsupported_method", f"its compression method, {other} ({name}), is not supported")


def _decoded(decoder: _Decoder, packed: Iterator[Buffer]) -> Iterator[Buffer]:
    try:
        for piece in packed:
            yield decoder.decompress(piece, CHUNK)
            while not (decoder.eof or decoder.needs_input):
                yield decoder.decompress(b"", CHUNK)
            if decoder.eof:
                break
    except _DECODER_ERRORS as error:
        raise MemberError("corrupt_data", "its compressed data is damaged") from error
    if not decoder.eof:
        raise MemberError("truncated", "its compressed data ends too early")
    if decoder.unused_data or next(packed, None):
        raise MemberError("trailing_data", "other bytes follow its compressed data")


def _lzma(data: Buffer, entry: ZipEntry) -> Iterator[Buffer]:
    """Decode a member compressed by LZMA (APPNOTE 5.8).

    In a ZIP a header of its own stands before the properties. With the one of the ``.lzma`` format instead,
    the public decoder takes it, bounded in memory, and knows where the data has to end.
    """
    properties_at = entry.data_offset + _LZMA_VERSION_AND_LENGTH.size
    content_at = properties_at + _LZMA_PROPERTIES
    if content_at > entry.data_end:
        raise MemberError("truncated", "its compressed data ends too early")
    if _LZMA_VERSION_AND_LENGTH.unpack_from(data, entry.data_offset) != (_LZMA_PROPERTIES,):
        raise MemberError("corrupt_data", "its compressed data is damaged")
    size = _UNKNOWN_SIZE if entry.flags & LZMA_END_MARK else entry.size
    header = bytes(data[properties_at:content_at]) + size.to_bytes(8, "little")
    decoder = lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=_LZMA_MEMORY)
    return _decoded(decoder, chain([header], chunks(data, content_at, entry.data_end, MAX_PIECE)))
