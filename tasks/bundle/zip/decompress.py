"""Decompress the content of one member, piece by piece.

Deflate uses isal, which takes two thirds of zlib's time on photographs. bzip2, LZMA and XZ use the standard library.
Zstandard uses the module of Python 3.14 or its backport. All decoders have the same interface, so one loop is enough.
"""

import bz2
import lzma
import struct
import sys
from collections.abc import Iterator
from itertools import chain
from typing import Protocol

from isal import igzip_lib

from tasks.bundle.zip.buffers import Buffer, split
from tasks.bundle.zip.directory import ENCRYPTED, LZMA_END_MARK, STRONGLY_ENCRYPTED, ZipEntry
from tasks.bundle.zip.errors import MemberError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

MAX_PIECE = 1 << 18
"""The maximum input of one decoder call, in bytes. Each piece acquires the interpreter lock three times, so the limit
is large enough to pass most photographs as one piece."""

CHUNK = 1 << 18
"""The maximum output of one decoder call, in bytes; a budget is never exceeded by more than this."""

MAX_WINDOW = 128 << 20
"""The maximum memory for one decoder, in bytes. It is twice what the highest presets of xz and 7-Zip need for reading,
and the maximum that the zstd program uses by default."""

# APPNOTE 4.4.5; the names help an operator to find a program that supports the method.
_OTHER_METHODS = {1: "Shrink", 6: "Implode", 9: "Deflate64", 98: "PPMd"}
_PATCHED = 1 << 5

_LZMA_PROPERTIES = 5
_LZMA_VERSION_AND_LENGTH = struct.Struct("<2xH")
_LZMA_DICTIONARY_AT = 5  # after the version, the length and one byte of other properties
_BZIP2_MEMORY = 4 << 20
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_ZSTD_SINGLE_SEGMENT = 1 << 5
_ZSTD_LONGEST_HEAD = 18
_ZSTD_LEAST_WINDOW = 10  # as a power of two
_UNKNOWN_SIZE = 0xFFFF_FFFF_FFFF_FFFF

# All exceptions that the decoders raise for damaged data; bz2 has no exception class and raises OSError.
_ISAL_ERROR: type[Exception] = igzip_lib.IsalError  # type: ignore[assignment]  # its stubs declare an instance
_DECODER_ERRORS = (_ISAL_ERROR, lzma.LZMAError, zstd.ZstdError, OSError, EOFError)


class _Decoder(Protocol):
    """The common interface of the incremental decoders of isal, bz2, lzma and zstd."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: Buffer, max_length: int) -> bytes: ...


def decompress(data: Buffer, entry: ZipEntry) -> Iterator[Buffer]:
    """Yield the content of a member in chunks of at most ``CHUNK`` bytes.

    The caller compares the size and the CRC. This function checks that the compressed data ends exactly at the offset
    in the entry.

    Raises:
        MemberError: the data is damaged, ends too early or too late, is encrypted, or uses an unsupported
            compression method.
    """
    if entry.flags & (ENCRYPTED | STRONGLY_ENCRYPTED):
        raise MemberError("encrypted", "it is encrypted")
    if entry.flags & _PATCHED:
        raise MemberError("unsupported_method", "it is a patch to a file that is not here")
    packed = split(data, entry.data_offset, entry.data_end, MAX_PIECE)
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
            window = max(_ZSTD_LEAST_WINDOW, (window_bytes(data, entry) - 1).bit_length())
            decoder = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: window})
            return _decoded(decoder, packed)
        case 95:
            return _decoded(lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=MAX_WINDOW), packed)
        case other:
            name = _OTHER_METHODS.get(other, "unknown to us")
            raise MemberError("unsupported_method", f"its compression method, {other} ({name}), is not supported")


def window_bytes(data: Buffer, entry: ZipEntry) -> int:
    """Return the memory that the decoder of a member needs, from the head of its data; 0 means a few KiB."""
    match entry.method:
        case 12:
            return _BZIP2_MEMORY
        case 14:
            dictionary_at = entry.data_offset + _LZMA_DICTIONARY_AT
            return min(int.from_bytes(data[dictionary_at : dictionary_at + 4], "little"), MAX_WINDOW)
        case 93:
            head = bytes(data[entry.data_offset : min(entry.data_end, entry.data_offset + _ZSTD_LONGEST_HEAD)])
            return min(_zstd_window(head), MAX_WINDOW)
        case 95:
            # Every block of a stream may set its own dictionary size, so assume the maximum.
            return MAX_WINDOW
    return 0


def _zstd_window(head: bytes) -> int:
    """Return the window size that a frame declares (RFC 8878, 3.1.1.1); 0 if the data is not a Zstandard frame."""
    if not head.startswith(_ZSTD_MAGIC) or len(head) < len(_ZSTD_MAGIC) + 2:
        return 0
    descriptor, window = head[4], head[5]
    if not descriptor & _ZSTD_SINGLE_SEGMENT:
        base = 1 << (10 + (window >> 3))
        return base + (base >> 3) * (window & 7)
    size_at = 5 + (0, 1, 2, 4)[descriptor & 3]
    length, offset = ((1, 0), (2, 256), (4, 0), (8, 0))[descriptor >> 6]
    return int.from_bytes(head[size_at : size_at + length], "little") + offset


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
    """Decode a member compressed with LZMA (APPNOTE 5.8).

    A ZIP has its own header before the LZMA properties. This function replaces it with the header of the ``.lzma``
    format. The public decoder then accepts the data, limits its memory and checks the end of the data.
    """
    properties_at = entry.data_offset + _LZMA_VERSION_AND_LENGTH.size
    content_at = properties_at + _LZMA_PROPERTIES
    if content_at > entry.data_end:
        raise MemberError("truncated", "its compressed data ends too early")
    if _LZMA_VERSION_AND_LENGTH.unpack_from(data, entry.data_offset) != (_LZMA_PROPERTIES,):
        raise MemberError("corrupt_data", "its compressed data is damaged")
    size = _UNKNOWN_SIZE if entry.flags & LZMA_END_MARK else entry.size
    header = bytes(data[properties_at:content_at]) + size.to_bytes(8, "little")
    decoder = lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=MAX_WINDOW)
    return _decoded(decoder, chain([header], split(data, content_at, entry.data_end, MAX_PIECE)))
