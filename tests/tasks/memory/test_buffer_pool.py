import gc
import mmap
import threading
import weakref
from typing import Any

import obstore
import pytest

from tasks.memory import buffer_pool
from tasks.memory.buffer_pool import SIZE, Arena, borrow

MANY = 80


@pytest.fixture(autouse=True)
def empty_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buffer_pool, "_free", [])
    monkeypatch.setattr(buffer_pool, "_lent", set())
    monkeypatch.setattr(buffer_pool, "_most_lent", 0)


@pytest.fixture
def mappings(monkeypatch: pytest.MonkeyPatch) -> "weakref.WeakSet[mmap.mmap]":
    """Return all mappings that exist."""
    alive: weakref.WeakSet[mmap.mmap] = weakref.WeakSet()
    real = mmap.mmap

    def create(*args: Any, **options: Any) -> mmap.mmap:
        mapping = real(*args, **options)
        alive.add(mapping)
        return mapping

    monkeypatch.setattr(mmap, "mmap", create)
    return alive


def filled(mark: int) -> memoryview:
    """Return a buffer that is filled with one byte."""
    buffer = borrow(SIZE)
    buffer[:] = bytes([mark]) * SIZE
    return buffer


def test_a_buffer_is_lent_again_when_no_view_of_it_exists() -> None:
    buffer = filled(1)
    del buffer
    assert borrow(SIZE)[0] == 1


def test_buffers_do_not_overlap_when_they_are_lent_at_the_same_time() -> None:
    lent = [filled(mark) for mark in range(MANY)]
    assert [bytes(each) for each in lent] == [bytes([mark]) * SIZE for mark in range(MANY)]


def test_a_buffer_stays_lent_while_a_slice_of_it_exists() -> None:
    part = filled(1)[10:20].toreadonly()
    others = [filled(2) for _ in range(MANY)]
    assert part == bytes([1]) * 10
    assert others[0][10] == 2


def test_a_buffer_stays_lent_while_the_bucket_client_reads_it() -> None:
    body = obstore.Bytes(filled(1)[:1000])
    others = [filled(2) for _ in range(MANY)]
    assert bytes(body) == bytes([1]) * 1000
    assert len(others) == MANY


def test_a_buffer_is_lent_again_when_another_thread_dropped_the_last_view() -> None:
    lent = [filled(1)]
    thread = threading.Thread(target=lent.clear)
    thread.start()
    thread.join()
    assert borrow(SIZE)[0] == 1


def test_free_blocks_are_unmapped_when_sizes_change(mappings: "weakref.WeakSet[mmap.mmap]") -> None:
    for number in range(MANY):
        lent = [borrow((1 + number % 7) * SIZE) for _ in range(10 // (1 + number % 7))]
        del lent
    gc.collect()
    assert sum(map(len, mappings)) <= 10 * SIZE


@pytest.mark.parametrize(("free", "size", "is_taken"), [(5, 4, True), (5, 5, True), (5, 3, False), (5, 6, False)])
def test_a_free_block_is_reused_only_if_the_size_nearly_fills_it(
    mappings: "weakref.WeakSet[mmap.mmap]", free: int, size: int, *, is_taken: bool
) -> None:
    others = borrow(50 * SIZE)
    del others
    first = borrow(free * SIZE)
    del first
    buffer = borrow(size * SIZE)
    assert len(buffer) == size * SIZE
    assert (len(buffer.obj) == free * SIZE) == is_taken


def test_one_block_is_mapped_when_buffers_are_used_one_after_the_other(mappings: "weakref.WeakSet[mmap.mmap]") -> None:
    for mark in range(MANY):
        filled(mark)
    assert len(mappings) == 1


def test_an_arena_appends_contents() -> None:
    arena = Arena(13)
    spans = [arena.put([b"front", b" and"]), arena.put([]), arena.put([b"back"])]
    content = arena.mapped()
    assert [bytes(content[slice(*span)]) for span in spans] == [b"front and", b"", b"back"]
    assert content.readonly


def test_an_arena_raises_value_error_when_a_content_does_not_fit() -> None:
    arena = Arena(SIZE)
    arena.put([bytes(SIZE - 1)])
    with pytest.raises(ValueError):  # noqa: PT011  # Python's own error, worded differently in each version
        arena.put([b"12"])
