import hashlib
import tracemalloc
from contextlib import closing
from pathlib import Path

import pytest

from tasks.errors import SpoolError
from tasks.memory.buffer_pool import SIZE
from tasks.memory.spool import DownloadBuffer, Spool, chunks, drop_pages, spooled_bytes

CONTENT = bytes(range(256)) * 8192  # 2 MiB


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
