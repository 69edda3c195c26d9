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
def places(monkeypatch: pytest.MonkeyPatch) -> "weakref.WeakSet[mmap.mmap]":
    """Return all memory that the system gave and has not got back."""
    alive: weakref.WeakSet[mmap.mmap] = weakref.WeakSet()
    real = mmap.mmap

    def given(*args: Any, **options: Any) -> mmap.mmap:
        place = real(*args, **options)
        alive.add(place)
        return place

    monkeypatch.setattr(mmap, "mmap", given)
    return alive


def marked(mark: int) -> memoryview:
    """Return a buffer that is full of a mark."""
    buffer = borrow(SIZE)
    buffer[:] = bytes([mark]) * SIZE
    return buffer


def test_what_nobody_looks_at_any_more_is_lent_again() -> None:
    buffer = marked(1)
    del buffer
    assert borrow(SIZE)[0] == 1


def test_those_that_are_lent_at_the_same_time_are_different() -> None:
    lent = [marked(mark) for mark in range(MANY)]
    assert [bytes(each) for each in lent] == [bytes([mark]) * SIZE for mark in range(MANY)]


def test_as_long_as_a_part_is_looked_at_the_whole_is_lent() -> None:
    part = marked(1)[10:20].toreadonly()
    others = [marked(2) for _ in range(MANY)]
    assert part == bytes([1]) * 10
    assert others[0][10] == 2


def test_what_the_client_of_the_bucket_still_reads_is_lent() -> None:
    body = obstore.Bytes(marked(1)[:1000])
    others = [marked(2) for _ in range(MANY)]
    assert bytes(body) == bytes([1]) * 1000
    assert len(others) == MANY


def test_a_thread_may_be_the_last_to_look() -> None:
    lent = [marked(1)]
    thread = threading.Thread(target=lent.clear)
    thread.start()
    thread.join()
    assert borrow(SIZE)[0] == 1


def test_blocks_of_other_sizes_do_not_add_up(places: "weakref.WeakSet[mmap.mmap]") -> None:
    for number in range(MANY):
        lent = [borrow((1 + number % 7) * SIZE) for _ in range(10 // (1 + number % 7))]
        del lent
    gc.collect()
    assert sum(map(len, places)) <= 10 * SIZE


@pytest.mark.parametrize(("free", "size", "is_taken"), [(5, 4, True), (5, 5, True), (5, 3, False), (5, 6, False)])
def test_a_block_is_lent_again_for_what_nearly_fills_it(
    places: "weakref.WeakSet[mmap.mmap]", free: int, size: int, *, is_taken: bool
) -> None:
    others = borrow(50 * SIZE)
    del others
    first = borrow(free * SIZE)
    del first
    buffer = borrow(size * SIZE)
    assert len(buffer) == size * SIZE
    assert (len(buffer.obj) == free * SIZE) == is_taken


def test_used_again_and_again_there_is_one(places: "weakref.WeakSet[mmap.mmap]") -> None:
    for mark in range(MANY):
        marked(mark)
    assert len(places) == 1


def test_an_arena_has_what_was_put_in_one_after_the_other() -> None:
    arena = Arena(13)
    spans = [arena.put([b"front", b" and"]), arena.put([]), arena.put([b"back"])]
    content = arena.mapped()
    assert [bytes(content[slice(*span)]) for span in spans] == [b"front and", b"", b"back"]
    assert content.readonly


def test_an_arena_takes_no_more_than_it_has_room_for() -> None:
    arena = Arena(SIZE)
    arena.put([bytes(SIZE - 1)])
    with pytest.raises(ValueError):  # noqa: PT011  # Python's own, of different words in each version
        arena.put([b"12"])
