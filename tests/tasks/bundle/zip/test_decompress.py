"""The memory of a decoder is known before it is allocated."""

import bz2
import lzma
import struct

import pytest

from tasks.bundle.zip import Limits, WindowNeeded, read_zip
from tasks.bundle.zip.check import check
from tasks.bundle.zip.decompress import MAX_WINDOW, window_bytes, zstd
from tests.zips import Raw, forged

MiB = 1 << 20
CONTENT = bytes(range(256)) * 40


def packed_by_zstd(window: int, *, sized: bool = False, content: bytes = CONTENT) -> bytes:
    options = {zstd.CompressionParameter.window_log: window}
    if sized:
        return zstd.compress(content, options=options)
    compressor = zstd.ZstdCompressor(options=options)
    return compressor.compress(content) + compressor.flush()


def packed_by_lzma(dictionary: int) -> bytes:
    filters = [{"id": lzma.FILTER_LZMA1, "dict_size": dictionary}]
    head = struct.pack("<2xHBL", 5, 0x5D, dictionary)
    return head + lzma.compress(CONTENT, lzma.FORMAT_RAW, filters=filters)


WINDOWS = [
    (Raw(content=CONTENT), 0),
    (Raw(method=8, content=CONTENT), 0),
    (Raw(method=12, content=CONTENT, packed=bz2.compress(CONTENT)), 4 * MiB),
    (Raw(method=14, flags=2, content=CONTENT, packed=packed_by_lzma(1 << 16)), 1 << 16),
    (Raw(method=14, flags=2, content=CONTENT, packed=packed_by_lzma(24 * MiB)), 24 * MiB),
    (Raw(method=93, content=CONTENT, packed=packed_by_zstd(10)), 1 << 10),
    (Raw(method=93, content=CONTENT, packed=packed_by_zstd(24)), 16 * MiB),
    (Raw(method=93, content=CONTENT, packed=packed_by_zstd(27)), MAX_WINDOW),
    (Raw(method=93, content=CONTENT, packed=packed_by_zstd(24, sized=True)), len(CONTENT)),
    (Raw(method=93, content=b"x" * 99, packed=packed_by_zstd(24, sized=True, content=b"x" * 99)), 99),
    (Raw(method=95, content=CONTENT, packed=lzma.compress(CONTENT)), MAX_WINDOW),
]


@pytest.mark.parametrize(("member", "window"), WINDOWS)
def test_a_member_is_read_if_there_is_memory_for_its_decoder(member: Raw, window: int) -> None:
    data = forged(Raw(), member)
    (content,) = read_zip(data, Limits(max_window_bytes=window)).members[1:]
    assert content.data == member.content
    if window:
        with pytest.raises(WindowNeeded) as needed:
            read_zip(data, Limits(max_window_bytes=window - 1))
        assert needed.value.size == window


@pytest.mark.parametrize(
    ("head", "window"),
    [
        (b"", 0),
        (b"\x28\xb5\x2f\xfd\0", 0),
        (b"\x50\x2a\x4d\x18" + bytes(9), 0),
        (b"\x28\xb5\x2f\xfd\0\x87", (1 << 26) + 7 * (1 << 23)),
        (b"\x28\xb5\x2f\xfd\0\xff", MAX_WINDOW),
        (b"\x28\xb5\x2f\xfd\x20\x07", 7),
        (b"\x28\xb5\x2f\xfd\x21\xaa\x07", 7),
        (b"\x28\xb5\x2f\xfd\x63" + b"\xaa" * 4 + b"\x07\x01", 256 + 0x107),
        (b"\x28\xb5\x2f\xfd\xe2" + b"\xaa" * 2 + b"\0\0\0\x01" + bytes(4), 16 * MiB),
    ],
)
def test_the_window_of_a_zstandard_frame_is_read_from_its_header(head: bytes, window: int) -> None:
    data = forged(Raw(method=93, packed=head))
    (entry,) = check(data, max_entries=1).entries
    assert window_bytes(data, entry) == window


@pytest.mark.parametrize("packed", [b"", b"\0\0\5\0\x5d", b"\0\0\5\0\x5d\xff\xff\xff\xff"])
def test_an_lzma_member_with_a_missing_or_huge_dictionary_is_unreadable(packed: bytes) -> None:
    data = forged(Raw(method=14, packed=packed))
    assert [each.cause in {"truncated", "corrupt_data"} for each in read_zip(data, Limits()).unreadable] == [True]
