import asyncio
import hashlib
import math
import tracemalloc
from contextlib import closing
from pathlib import Path

import pytest

from tasks.errors import SpoolError
from tasks.memory.buffer_pool import SIZE
from tasks.memory.byte_budget import ByteBudget
from tasks.memory.spool import DownloadBuffer, Spool, chunks, disk_space, drop_pages, spooled_bytes

CONTENT = bytes(range(256)) * 8192  # 2 MiB
CONTENT_BYTES = len(CONTENT)


async def download(content: bytes, in_memory: int, folder: Path | None = None, step: int = 70_000) -> DownloadBuffer:
    buffer = DownloadBuffer(in_memory, folder)
    for at in range(0, len(content), step):
        await buffer.add(content[at : at + step])
    return buffer


@pytest.mark.parametrize("size", [0, 1, 1000, 1001, 1 << 20, (1 << 20) + 1, 2 << 20])
async def test_a_download_is_whole_and_hashed_in_memory_and_on_disk(tmp_path: Path, size: int) -> None:
    buffer = await download(CONTENT[:size], 1000, tmp_path)
    data, sha256 = await buffer.whole()
    buffer.close()
    assert buffer.size == size
    assert data == CONTENT[:size]
    assert sha256 == hashlib.sha256(CONTENT[:size]).hexdigest()
    assert spooled_bytes() == (size if size > 1000 else 0)


@pytest.mark.parametrize("size", [0, 1, SIZE - 1, SIZE, SIZE + 1, 2 * SIZE])
async def test_a_download_is_whole_at_the_boundaries_of_a_buffer(size: int) -> None:
    data, sha256 = await (await download(CONTENT[:size], len(CONTENT))).whole()
    assert data == CONTENT[:size]
    assert sha256 == hashlib.sha256(CONTENT[:size]).hexdigest()


async def test_downloads_do_not_share_memory_when_they_exist_at_the_same_time() -> None:
    found = [(await (await download(bytes([mark]) * SIZE, SIZE)).whole())[0] for mark in range(5)]
    assert found == [bytes([mark]) * SIZE for mark in range(5)]


async def test_a_download_is_not_copied_as_a_whole() -> None:
    tracemalloc.start()
    try:
        buffer = DownloadBuffer(len(CONTENT), None)
        for at in range(0, len(CONTENT), 70_000):
            await buffer.add(CONTENT[at : at + 70_000])
        await buffer.whole()
        assert tracemalloc.get_traced_memory()[1] < 1.3 * len(CONTENT)
    finally:
        tracemalloc.stop()


async def test_a_download_in_memory_is_read_only() -> None:
    data, _ = await (await download(CONTENT, len(CONTENT))).whole()
    assert isinstance(data, memoryview)
    assert data.readonly


async def test_a_spooled_download_is_read_only(tmp_path: Path) -> None:
    data, _ = await (await download(CONTENT, 1000, tmp_path)).whole()
    assert isinstance(data, memoryview)
    with pytest.raises(TypeError):
        data[0] = 1


async def test_a_download_raises_spool_error_when_the_disk_fails(tmp_path: Path) -> None:
    with pytest.raises(SpoolError, match="No such file"):
        await download(CONTENT, 1000, tmp_path / "missing")


def test_a_spool_leaves_no_visible_file_in_its_folder(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.put([CONTENT])
    assert list(tmp_path.iterdir()) == []
    spool.close()


def test_a_spool_appends_contents(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    ranges = [spool.put([b"first"]), spool.put([b"sec", b"ond"]), spool.put([])]
    data = spool.mapped()
    assert ranges == [(0, 5), (5, 11), (11, 11)]
    assert [bytes(data[begin:end]) for begin, end in ranges] == [b"first", b"second", b""]


def test_a_spool_opens_no_file_when_it_is_empty() -> None:
    spool = Spool(Path("/nowhere"))
    assert spool.mapped() == b""
    spool.close()


@pytest.mark.parametrize("mapped", [True, False])
def test_chunks_yield_the_whole_content_when_pages_are_dropped(tmp_path: Path, *, mapped: bool) -> None:
    spool = Spool(tmp_path)
    spool.put([CONTENT])
    data = memoryview(spool.mapped() if mapped else CONTENT)
    spool.close()
    assert b"".join(chunks(data, 10, len(data) - 10, 65_536)) == CONTENT[10:-10]
    drop_pages(data)
    assert data == CONTENT


def test_chunks_are_views() -> None:
    assert [type(piece) for piece in chunks(CONTENT, 0, len(CONTENT), 65_536)][:2] == [memoryview, memoryview]


def test_disk_space_is_nan_when_the_folder_is_missing(tmp_path: Path) -> None:
    free, size = disk_space(tmp_path)
    assert 0 < free <= size
    assert all(map(math.isnan, disk_space(tmp_path / "gone")))


def test_spooled_bytes_are_counted_while_a_view_exists(tmp_path: Path) -> None:
    before = spooled_bytes()
    with closing(Spool(tmp_path)) as spool:
        spool.put([b"a" * 1_000])
        assert spooled_bytes() == before + 1_000
        mapped = spool.mapped()
    assert spooled_bytes() == before + 1_000, "the mapping keeps the file"
    part = mapped[10:20]
    del mapped
    assert spooled_bytes() == before + 1_000, "so does a part of it"
    del part
    assert spooled_bytes() == before


def test_spooled_bytes_are_not_counted_after_close_without_a_view(tmp_path: Path) -> None:
    before = spooled_bytes()
    with closing(Spool(tmp_path)) as spool:
        spool.put([b"a" * 1_000])
    assert spooled_bytes() == before


@pytest.mark.parametrize(
    ("size", "in_memory"), [(CONTENT_BYTES, CONTENT_BYTES), (CONTENT_BYTES, CONTENT_BYTES - 1), (0, 0)]
)
@pytest.mark.parametrize("announced", [None, 0, CONTENT_BYTES // 2, CONTENT_BYTES, 2 * CONTENT_BYTES])
async def test_a_download_is_whole_whatever_size_was_announced(
    tmp_path: Path, size: int, in_memory: int, announced: int | None
) -> None:
    budget = ByteBudget(8 << 20)
    async with budget.reserve(10) as reservation:
        with closing(DownloadBuffer(in_memory, tmp_path, reservation)) as buffer:
            if announced is not None:
                await buffer.expect(announced)
            for at in range(0, size, 70_000):
                await buffer.add(CONTENT[at : min(size, at + 70_000)])
            data, sha256 = await buffer.whole()
        is_spooled = size > in_memory
        assert data == CONTENT[:size]
        assert sha256 == hashlib.sha256(CONTENT[:size]).hexdigest()
        assert spooled_bytes() == (size if is_spooled else 0)
        assert reservation.amount == (0 if is_spooled else size)


async def test_a_download_of_unknown_size_is_spooled_when_the_budget_is_spent(tmp_path: Path) -> None:
    budget = ByteBudget(2 << 20)
    async with budget.reserve(1 << 20), budget.reserve(10) as reservation:
        with closing(DownloadBuffer(8 << 20, tmp_path, reservation)) as buffer:
            for at in range(0, CONTENT_BYTES, 70_000):
                await buffer.add(CONTENT[at : at + 70_000])
            data, _ = await buffer.whole()
        assert data == CONTENT
        assert spooled_bytes() == CONTENT_BYTES


async def test_a_download_of_known_size_waits_when_the_budget_is_spent(tmp_path: Path) -> None:
    budget = ByteBudget(4 << 20)
    async with budget.reserve(10) as reservation:
        buffer = DownloadBuffer(2 << 20, tmp_path, reservation)
        async with budget.reserve(3 << 20):
            waiting = asyncio.create_task(buffer.expect(2 << 20))
            await asyncio.sleep(0.01)
            assert not waiting.done()
        await asyncio.wait_for(waiting, 60)
        assert reservation.amount == 2 << 20
