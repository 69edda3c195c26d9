"""What is little is opened on the loop, one after the other; what takes long in a thread, and only a few at once."""

import asyncio
import hashlib
import random
import threading
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tasks.bundle import unpacker
from tasks.bundle.unpack import SMALL_BUNDLE, Limits, unpack, unpack_small
from tasks.bundle.unpacker import BundleContents, BundleUnpacker
from tasks.memory.byte_budget import ByteBudget
from tasks.riskos.response import Bundle
from tests.counting import Counted
from tests.zips import zip_of
from worker.metrics.worker_metrics import Step

LARGE = 8 << 20
NOISE = random.Random(7).randbytes(SMALL_BUNDLE // 2 + 1)  # noqa: S311  # no secret
PHOTOGRAPH = b"\xff\xd8\xff\xe0" + bytes(range(256))


def bundle_of(data: bytes) -> Bundle:
    return Bundle(None, data, hashlib.sha256(data).hexdigest(), len(data))


def noise(size: int) -> Bundle:
    """Return a bundle of somewhat more than so many bytes."""
    content = random.Random(size).randbytes(size)  # noqa: S311  # no secret
    return bundle_of(zip_of({"selfie.jpg": content}, zipfile.ZIP_STORED))


async def opened(bundle: Bundle, by: BundleUnpacker) -> BundleContents:
    async with by.unpacked(bundle.data) as contents:
        return contents


class Watched:
    """Notes in which threads, and how many at once, bundles are opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.threads: list[threading.Thread] = []
        self.most = self._now = 0
        monkeypatch.setattr(unpacker, "unpack", self._noting(unpack))
        monkeypatch.setattr(unpacker, "unpack_small", self._noting(unpack_small))

    def _noting(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def noting(*given: Any) -> Any:
            self._now += 1
            self.most = max(self.most, self._now)
            found = real(*given)
            if found is not None:
                self.threads.append(threading.current_thread())
                time.sleep(0.005)
            self._now -= 1
            return found

        return noting


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Watched:
    return Watched(monkeypatch)


async def test_what_riskos_does_not_have_is_nothing() -> None:
    async with BundleUnpacker(Limits()).unpacked(None) as contents:
        assert contents == BundleContents()


async def test_a_little_bundle_is_opened_on_the_loop(watched: Watched) -> None:
    contents = await opened(bundle_of(zip_of({"selfie.jpg": PHOTOGRAPH})), BundleUnpacker(Limits()))
    assert [(each.kind, bytes(each.data)) for each in contents.documents] == [("selfie", PHOTOGRAPH)]
    assert watched.threads == [threading.current_thread()]


async def test_while_somebody_has_to_leave_in_time_nothing_is_opened_on_the_loop(watched: Watched) -> None:
    bundle, hurried = bundle_of(zip_of({"selfie.jpg": PHOTOGRAPH})), True
    opener = BundleUnpacker(Limits(), avoid_blocking=lambda: hurried)
    contents = await opened(bundle, opener)
    assert [(each.kind, bytes(each.data)) for each in contents.documents] == [("selfie", PHOTOGRAPH)]
    assert threading.current_thread() not in watched.threads

    hurried = False
    assert await opened(bundle, opener) == contents
    assert watched.threads[1:] == [threading.current_thread()]


@pytest.mark.parametrize(
    "bundle",
    [
        pytest.param(noise(SMALL_BUNDLE), id="large"),
        pytest.param(bundle_of(zip_of({"selfie.jpg": PHOTOGRAPH}, zipfile.ZIP_LZMA)), id="slow"),
        pytest.param(bundle_of(zip_of({"selfie.jpg": bytes(range(256)) * 2048 + NOISE})), id="much in it"),
    ],
)
async def test_what_may_take_longer_is_opened_beside_the_loop(watched: Watched, bundle: Bundle) -> None:
    contents = await opened(bundle, BundleUnpacker(Limits()))
    assert [each.kind for each in contents.documents] == ["selfie"]
    assert len(watched.threads) == 1
    assert threading.current_thread() not in watched.threads


@pytest.mark.parametrize(("size", "most"), [(10, 1), (SMALL_BUNDLE, 2)])
async def test_bundles_whose_answers_come_together_are_opened_one_after_the_other_or_nearly_so(
    watched: Watched, size: int, most: int
) -> None:
    opener = BundleUnpacker(Limits())
    await asyncio.gather(*(opened(noise(size), opener) for _ in range(6)))
    assert len(watched.threads) == 6
    assert watched.most <= most


async def test_others_have_their_turn_between_two_bundles_on_the_loop(watched: Watched) -> None:
    seen = []

    async def look() -> None:
        while len(watched.threads) < 6:
            seen.append(len(watched.threads))
            await asyncio.sleep(0)

    opener = BundleUnpacker(Limits())
    await asyncio.gather(look(), *(opened(noise(10), opener) for _ in range(6)))
    assert set(seen) >= {1, 2, 3, 4, 5}


async def test_what_is_very_large_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = threading.Event()

    def slow(data: Any, *given: Any) -> Any:
        assert len(data) <= LARGE or go_on.wait(30)
        return unpack(data, *given)

    monkeypatch.setattr(unpacker, "unpack", slow)
    opener = BundleUnpacker(Limits(), ByteBudget(1 << 30))
    large = [asyncio.create_task(opened(noise(LARGE), opener)) for _ in range(3)]
    await asyncio.gather(*(opened(noise(size), opener) for size in (10, SMALL_BUNDLE)))
    assert not any(task.done() for task in large)
    go_on.set()
    assert [len((await task).documents) for task in large] == [1, 1, 1]


async def test_what_is_opened_is_in_memory_for_as_long_as_the_block_lasts(tmp_path: Path) -> None:
    bundle = noise(1000)
    opener = BundleUnpacker(Limits(), ByteBudget(2 * len(bundle.data)), tmp_path)
    async with opener.unpacked(bundle.data):
        waiting = asyncio.create_task(opened(bundle, opener))
        await asyncio.sleep(0.02)
        assert not waiting.done()
    assert (await waiting).documents


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (b"PK\x05\x06", "no_end_record"),
        (zip_of({}), "empty_bundle"),
        (zip_of({"a": b"", "b": b""}), "too_many_documents"),
    ],
)
async def test_why_a_bundle_cannot_be_read_is_told_of_the_bundle(data: bytes, cause: str) -> None:
    contents = await opened(bundle_of(data), BundleUnpacker(Limits(max_documents=1)))
    assert [(each.name, each.cause) for each in contents.unreadable] == [("", cause)]


async def test_each_bundle_is_counted_once_however_it_was_opened(counted: Counted) -> None:
    opener = BundleUnpacker(Limits())
    for bundle in (noise(10), noise(SMALL_BUNDLE), bundle_of(b"PK\x05\x06")):
        await opened(bundle, opener)
    assert counted[f'docv_step_seconds_count{{step="{Step.UNPACK}"}}'] == 3
