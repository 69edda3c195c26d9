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
CHUNKS = len(CONTENT)


async def arrived(content: bytes, in_memory: int, folder: Path | None = None, step: int = 70_000) -> DownloadBuffer:
    incoming = DownloadBuffer(in_memory, folder)
    for at in range(0, len(content), step):
        await incoming.add(content[at : at + step])
    return incoming


@pytest.mark.parametrize("size", [0, 1, 1000, 1001, 1 << 20, (1 << 20) + 1, 2 << 20])
async def test_what_arrives_is_whole_and_hashed_wherever_it_is(tmp_path: Path, size: int) -> None:
    incoming = await arrived(CONTENT[:size], 1000, tmp_path)
    data, sha256 = await incoming.whole()
    incoming.close()
    assert incoming.size == size
    assert data == CONTENT[:size]
    assert sha256 == hashlib.sha256(CONTENT[:size]).hexdigest()
    assert spooled_bytes() == (size if size > 1000 else 0)


@pytest.mark.parametrize("size", [0, 1, SIZE - 1, SIZE, SIZE + 1, 2 * SIZE])
async def test_what_arrives_is_whole_also_where_a_buffer_does_not_take_it(size: int) -> None:
    data, sha256 = await (await arrived(CONTENT[:size], len(CONTENT))).whole()
    assert data == CONTENT[:size]
    assert sha256 == hashlib.sha256(CONTENT[:size]).hexdigest()


async def test_what_arrives_at_the_same_time_is_kept_apart() -> None:
    found = [(await (await arrived(bytes([mark]) * SIZE, SIZE)).whole())[0] for mark in range(5)]
    assert found == [bytes([mark]) * SIZE for mark in range(5)]


async def test_what_arrives_is_never_there_twice() -> None:
    tracemalloc.start()
    try:
        incoming = DownloadBuffer(len(CONTENT), None)
        for at in range(0, len(CONTENT), 70_000):
            await incoming.add(CONTENT[at : at + 70_000])
        await incoming.whole()
        assert tracemalloc.get_traced_memory()[1] < 1.3 * len(CONTENT)
    finally:
        tracemalloc.stop()


async def test_what_is_in_memory_cannot_be_changed_either() -> None:
    data, _ = await (await arrived(CONTENT, len(CONTENT))).whole()
    assert isinstance(data, memoryview)
    assert data.readonly


async def test_what_is_spooled_cannot_be_changed(tmp_path: Path) -> None:
    data, _ = await (await arrived(CONTENT, 1000, tmp_path)).whole()
    assert isinstance(data, memoryview)
    with pytest.raises(TypeError):
        data[0] = 1


async def test_a_disk_that_does_not_take_it_is_told_as_such(tmp_path: Path) -> None:
    with pytest.raises(SpoolError, match="No such file"):
        await arrived(CONTENT, 1000, tmp_path / "missing")


def test_the_file_of_a_spool_has_no_name(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.put([CONTENT])
    assert list(tmp_path.iterdir()) == []
    spool.close()


def test_several_contents_stand_one_after_the_other(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    places = [spool.put([b"first"]), spool.put([b"sec", b"ond"]), spool.put([])]
    data = spool.mapped()
    assert places == [(0, 5), (5, 11), (11, 11)]
    assert [bytes(data[slice(*place)]) for place in places] == [b"first", b"second", b""]


def test_a_spool_that_nothing_was_put_into_is_empty_and_has_no_file() -> None:
    spool = Spool(Path("/nowhere"))
    assert spool.mapped() == b""
    spool.close()


@pytest.mark.parametrize("mapped", [True, False])
def test_pieces_are_the_whole_also_when_memory_is_let_go_of_meanwhile(tmp_path: Path, *, mapped: bool) -> None:
    spool = Spool(tmp_path)
    spool.put([CONTENT])
    data = memoryview(spool.mapped() if mapped else CONTENT)
    spool.close()
    assert b"".join(chunks(data, 10, len(data) - 10, 65_536)) == CONTENT[10:-10]
    drop_pages(data)
    assert data == CONTENT


def test_pieces_are_views_and_no_copies() -> None:
    assert [type(piece) for piece in chunks(CONTENT, 0, len(CONTENT), 65_536)][:2] == [memoryview, memoryview]


def test_the_space_of_a_disk_is_no_number_if_the_system_does_not_say(tmp_path: Path) -> None:
    free, size = disk_space(tmp_path)
    assert 0 < free <= size
    assert all(map(math.isnan, disk_space(tmp_path / "gone")))


def test_what_is_on_disk_is_counted_until_nobody_needs_it(tmp_path: Path) -> None:
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


def test_what_was_spooled_for_nothing_is_counted_no_more(tmp_path: Path) -> None:
    before = spooled_bytes()
    with closing(Spool(tmp_path)) as spool:
        spool.put([b"a" * 1_000])
    assert spooled_bytes() == before


@pytest.mark.parametrize(("size", "in_memory"), [(CHUNKS, CHUNKS), (CHUNKS, CHUNKS - 1), (0, 0)])
@pytest.mark.parametrize("announced", [None, 0, CHUNKS // 2, CHUNKS, 2 * CHUNKS])
async def test_a_content_is_whole_whatever_size_was_announced(
    tmp_path: Path, size: int, in_memory: int, announced: int | None
) -> None:
    budget = ByteBudget(8 << 20)
    async with budget.reserve(10) as reservation:
        with closing(DownloadBuffer(in_memory, tmp_path, reservation)) as incoming:
            if announced is not None:
                await incoming.expect(announced)
            for at in range(0, size, 70_000):
                await incoming.add(CONTENT[at : min(size, at + 70_000)])
            data, sha256 = await incoming.whole()
        is_spooled = size > in_memory
        assert data == CONTENT[:size]
        assert sha256 == hashlib.sha256(CONTENT[:size]).hexdigest()
        assert spooled_bytes() == (size if is_spooled else 0)
        assert reservation.amount == (0 if is_spooled else size)


async def test_a_content_of_unknown_size_is_spooled_if_the_budget_has_no_room(tmp_path: Path) -> None:
    budget = ByteBudget(2 << 20)
    async with budget.reserve(1 << 20), budget.reserve(10) as reservation:
        with closing(DownloadBuffer(8 << 20, tmp_path, reservation)) as incoming:
            for at in range(0, CHUNKS, 70_000):
                await incoming.add(CONTENT[at : at + 70_000])
            data, _ = await incoming.whole()
        assert data == CONTENT
        assert spooled_bytes() == CHUNKS


async def test_a_content_of_known_size_waits_for_memory(tmp_path: Path) -> None:
    budget = ByteBudget(4 << 20)
    async with budget.reserve(10) as reservation:
        incoming = DownloadBuffer(8 << 20, tmp_path, reservation)
        async with budget.reserve(3 << 20):
            waiting = asyncio.create_task(incoming.expect(2 << 20))
            await asyncio.sleep(0.01)
            assert not waiting.done()
        await asyncio.wait_for(waiting, 1)
        assert reservation.amount == 2 << 20
