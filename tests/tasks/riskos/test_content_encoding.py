import gzip
import random
import zlib
from collections.abc import AsyncIterator, Callable

import pytest

from tasks.bundle.zip.decompress import zstd
from tasks.errors import ConnectionFailed
from tasks.riskos.content_encoding import decode_body

BODY = random.Random(7).randbytes(70_000) + bytes(700_000)  # noqa: S311  # not a secret
SIZES = [1 << 30, 4096, 1]


def raw_deflate(data: bytes) -> bytes:
    return zlib.compress(data)[2:-4]


ENCODERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
    "zstd": zstd.compress,
}


async def stream_chunks(data: bytes, size: int) -> AsyncIterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


async def decoded(data: bytes, *headers: str, size: int = 4096) -> bytes:
    return b"".join([chunk async for chunk in decode_body(stream_chunks(data, size), headers)])


async def error_of(data: bytes, *headers: str) -> str:
    with pytest.raises(ConnectionFailed) as caught:
        await decoded(data, *headers)
    return caught.value.what


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("coding", ENCODERS)
async def test_every_coding_is_decoded_in_chunks_of_any_size(coding: str, size: int) -> None:
    assert await decoded(ENCODERS[coding](BODY[-71_000:]), coding.upper(), size=size) == BODY[-71_000:]


async def test_deflate_without_the_header_of_zlib_is_decoded() -> None:
    assert await decoded(raw_deflate(BODY), "deflate") == BODY


@pytest.mark.parametrize("headers", [("gzip, gzip",), ("gzip", "x-gzip"), ("identity, gzip ,, gzip",)])
async def test_a_body_is_decoded_twice_when_it_was_encoded_twice(headers: tuple[str, ...]) -> None:
    assert await decoded(gzip.compress(gzip.compress(BODY)), *headers) == BODY


async def test_codings_are_decoded_in_reverse_order_of_the_header() -> None:
    assert await decoded(gzip.compress(zlib.compress(BODY)), "deflate, gzip") == BODY


@pytest.mark.parametrize("headers", [(), ("identity",), ("",), ("binary",), ("utf-8, binary",)])
async def test_a_body_is_unchanged_when_its_coding_is_unknown(headers: tuple[str, ...]) -> None:
    assert await decoded(BODY, *headers) == BODY


async def test_codings_after_an_unknown_one_are_decoded() -> None:
    assert await decoded(gzip.compress(BODY), "binary, gzip") == BODY


@pytest.mark.parametrize("size", SIZES)
async def test_consecutive_streams_are_one_body_without_padding(size: int) -> None:
    data = gzip.compress(b"one") + gzip.compress(b"") + gzip.compress(b"two") + b"\r\n\0"
    assert await decoded(data, "gzip", size=size) == b"onetwo"


async def test_an_empty_body_is_decoded_to_an_empty_one() -> None:
    assert await decoded(b"", "gzip, deflate") == b""


@pytest.mark.parametrize("coding", ENCODERS)
@pytest.mark.parametrize("cut", [1, 3, 60_000])
async def test_a_body_that_is_cut_short_is_refused(coding: str, cut: int) -> None:
    assert await error_of(ENCODERS[coding](BODY)[:-cut], coding) == "TruncatedContentEncoding"


async def test_an_inner_stream_that_is_cut_short_is_refused() -> None:
    assert await error_of(gzip.compress(gzip.compress(BODY)[:-1]), "gzip, gzip") == "TruncatedContentEncoding"


@pytest.mark.parametrize(
    "data",
    [BODY, gzip.compress(BODY)[:-5] + b"12345", gzip.compress(BODY) + b"other bytes", b"\x1f\x8b\x09" + bytes(20)],
)
async def test_a_damaged_body_is_refused(data: bytes) -> None:
    assert await error_of(data, "gzip") == "DamagedContentEncoding"


async def test_a_body_with_more_than_five_codings_is_refused() -> None:
    assert await error_of(BODY, ",".join(["gzip"] * 6)) == "TooManyContentCodings"


async def test_a_zip_bomb_is_decoded_in_small_chunks() -> None:
    pieces = decode_body(stream_chunks(gzip.compress(bytes(8 << 20)), 1 << 20), ("gzip",))
    assert max([len(piece) async for piece in pieces]) <= 1 << 18
