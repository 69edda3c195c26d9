"""Decode the body of a response (RFC 9110, 8.4): every content coding, each to its end.

The HTTP client decodes only one coding, does not know ``x-gzip``, and accepts a gzip stream that is cut short.
"""

import sys
import zlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Protocol

from isal import igzip_lib

from tasks.bundle.zip.directory import PADDING
from tasks.errors import ConnectionFailed

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_CHUNK = 1 << 18
_MAX_CODINGS = 5
_ZSTD_WINDOW = 23  # as a power of two: 8 MiB, the most that RFC 9659 allows
_ISAL_ERROR: type[Exception] = igzip_lib.IsalError  # type: ignore[assignment]  # its stubs declare an instance
_ERRORS = (_ISAL_ERROR, zstd.ZstdError, EOFError)


class _BodyDecoder(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int) -> bytes: ...


def _open_gzip(_: bytes) -> _BodyDecoder:
    return igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)


def _open_deflate(beginning: bytes) -> _BodyDecoder:
    # Some servers omit the header of zlib.
    is_zlib = beginning[0] & 0x0F == zlib.DEFLATED
    return igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_ZLIB if is_zlib else igzip_lib.DECOMP_DEFLATE)


def _open_zstd(_: bytes) -> _BodyDecoder:
    return zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: _ZSTD_WINDOW})


_DECODERS: Mapping[str, Callable[[bytes], _BodyDecoder]] = {
    "gzip": _open_gzip,
    "x-gzip": _open_gzip,
    "deflate": _open_deflate,
    "zstd": _open_zstd,
}


def decode_body(chunks: AsyncIterator[bytes], content_encodings: Sequence[str]) -> AsyncIterator[bytes]:
    """Return the chunks of a body, decoded.

    Decoding ends at a coding that is not known here. A bundle is recognized by its bytes.

    Args:
        chunks: the body as it arrives.
        content_encodings: the values of all ``Content-Encoding`` headers, in order.

    Raises:
        ConnectionFailed: the headers name too many codings. Reading the chunks raises it if the body is damaged or cut
            short.
    """
    named = [each.strip().lower() for value in content_encodings for each in value.split(",")]
    codings = [each for each in reversed(named) if each not in {"", "identity"}]
    if len(codings) > _MAX_CODINGS:
        raise ConnectionFailed("TooManyContentCodings")
    for coding in codings:
        if coding not in _DECODERS:
            break
        chunks = _decode(chunks, _DECODERS[coding])
    return chunks


async def _decode(chunks: AsyncIterator[bytes], open_decoder: Callable[[bytes], _BodyDecoder]) -> AsyncIterator[bytes]:
    """Yield the decoded chunks; several streams may follow each other, and padding may follow the last one."""
    decoder: _BodyDecoder | None = None
    has_ended = False
    async for chunk in chunks:
        data = chunk.lstrip(PADDING) if has_ended and not decoder else chunk
        while data or (decoder and not decoder.needs_input):
            try:
                decoder = decoder or open_decoder(data)
                decoded = decoder.decompress(data, _CHUNK)
            except _ERRORS:
                raise ConnectionFailed("DamagedContentEncoding") from None
            yield decoded
            data = b""
            if decoder.eof:
                data, decoder, has_ended = decoder.unused_data.lstrip(PADDING), None, True
    if decoder:
        raise ConnectionFailed("TruncatedContentEncoding")
