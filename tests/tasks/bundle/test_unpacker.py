"""Bundles are unpacked in threads, a few at a time, as memory allows."""

import asyncio
import hashlib
import random
import threading
import time
import zipfile
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from tasks.bundle import unpacker
from tasks.bundle.unpack import unpack
from tasks.bundle.unpacker import BundleContents, BundleUnpacker
from tasks.bundle.zip import Limits
from tasks.bundle.zip.decompress import zstd
from tasks.memory.byte_budget import ByteBudget, Reservation
from tasks.riskos.response import Bundle
from tests.counting import MetricGrowth
from tests.zips import Raw, forged, zip_of
from worker.metrics.worker_metrics import Step

LARGE = 8 << 20
PHOTOGRAPH = b"\xff\xd8\xff\xe0" + bytes(range(256))


def bundle_of(data: bytes) -> Bundle:
    return Bundle(None, data, hashlib.sha256(data).hexdigest(), len(data))


def noise(size: int) -> Bundle:
    """Return a bundle that is slightly larger than this number of bytes."""
    content = random.Random(size).randbytes(size)  # noqa: S311  # no secret
    return bundle_of(zip_of({"selfie.jpg": content}, zipfile.ZIP_STORED))


async def unpack_contents(bundle: Bundle, bundle_unpacker: BundleUnpacker) -> BundleContents:
    async with bundle_unpacker.unpacked(bundle.data) as contents:
        return contents


class UnpackRecorder:
    """Records the threads that unpack bundles, and the largest number at the same time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.threads: list[threading.Thread] = []
        self.most = self._now = 0
        monkeypatch.setattr(unpacker, "unpack", self._recorded(unpack))

    def _recorded(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def record(*args: Any) -> Any:
            self._now += 1
            self.most = max(self.most, self._now)
            found = real(*args)
            self.threads.append(threading.current_thread())
            time.sleep(0.005)
            self._now -= 1
            return found

        return record


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> UnpackRecorder:
    return UnpackRecorder(monkeypatch)


async def test_a_missing_bundle_has_no_contents() -> None:
    async with BundleUnpacker(Limits()).unpacked(None) as contents:
        assert contents == BundleContents()


async def test_bundles_are_unpacked_in_threads_at_most_two_at_a_time(recorder: UnpackRecorder) -> None:
    bundle_unpacker = BundleUnpacker(Limits())
    contents = await asyncio.gather(
        *(unpack_contents(noise(size), bundle_unpacker) for size in (10, 10, 10, 10, 1 << 20, 1 << 20))
    )
    assert [[each.kind for each in one.documents] for one in contents] == [["selfie"]] * 6
    assert len(recorder.threads) == 6
    assert threading.current_thread() not in recorder.threads
    assert recorder.most <= 2


async def test_very_large_bundles_do_not_delay_others(monkeypatch: pytest.MonkeyPatch) -> None:
    resume = threading.Event()

    def slow(data: Any, *args: Any) -> Any:
        assert len(data) <= LARGE or resume.wait(30)
        return unpack(data, *args)

    monkeypatch.setattr(unpacker, "unpack", slow)
    bundle_unpacker = BundleUnpacker(Limits(), ByteBudget(1 << 30))
    large = [asyncio.create_task(unpack_contents(noise(LARGE), bundle_unpacker)) for _ in range(3)]
    await asyncio.gather(*(unpack_contents(noise(size), bundle_unpacker) for size in (10, 1 << 20)))
    assert not any(task.done() for task in large)
    resume.set()
    assert [len((await task).documents) for task in large] == [1, 1, 1]


async def test_the_memory_of_a_bundle_is_reserved_until_the_block_ends(tmp_path: Path) -> None:
    bundle = noise(1000)
    bundle_unpacker = BundleUnpacker(Limits(), ByteBudget(2 * len(bundle.data)), tmp_path)
    async with bundle_unpacker.unpacked(bundle.data):
        waiting = asyncio.create_task(unpack_contents(bundle, bundle_unpacker))
        await asyncio.sleep(0.02)
        assert not waiting.done()
    assert (await waiting).documents


async def test_spooled_contents_take_no_memory_after_they_are_unpacked(tmp_path: Path) -> None:
    bundle = noise(1000)
    budget = ByteBudget(1000)
    async with BundleUnpacker(Limits(in_memory=999), budget, tmp_path).unpacked(bundle.data) as contents:
        assert contents.documents
        async with asyncio.timeout(60), budget.reserve(1000):
            pass


def bundle_with_window(power: int) -> Bundle:
    compressor = zstd.ZstdCompressor(options={zstd.CompressionParameter.window_log: power})
    packed = compressor.compress(PHOTOGRAPH) + compressor.flush()
    return bundle_of(forged(Raw(name=b"selfie.jpg", method=93, content=PHOTOGRAPH, packed=packed)))


class RecordingBudget(ByteBudget):
    """A budget that records reservations."""

    def __init__(self, most: int) -> None:
        super().__init__(most)
        self.reserved: list[int] = []

    def reserve(self, amount: int) -> AbstractAsyncContextManager[Reservation]:
        self.reserved.append(amount)
        return super().reserve(amount)


async def test_the_window_of_a_decoder_is_reserved_only_until_the_bundle_is_unpacked() -> None:
    bundle, window = bundle_with_window(24), 16 << 20
    documents = 2 * bundle.size + (64 << 10)
    budget = RecordingBudget(documents + window)
    bundle_unpacker = BundleUnpacker(Limits(), budget)
    async with bundle_unpacker.unpacked(bundle.data) as contents:
        assert [bytes(each.data) for each in contents.documents] == [PHOTOGRAPH]
        assert budget.reserved == [documents, documents + window]
        async with asyncio.timeout(60), budget.reserve(window):
            pass


async def test_decoders_with_large_windows_run_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    decoding: list[int] = []

    def unpack_alone(data: Any, limits: Limits, *args: Any) -> Any:
        if limits.max_window_bytes:
            decoding.append(1)
            time.sleep(0.005)
            assert decoding.pop() == len(decoding) + 1 == 1
        return unpack(data, limits, *args)

    monkeypatch.setattr(unpacker, "unpack", unpack_alone)
    bundle_unpacker = BundleUnpacker(Limits(), ByteBudget(1 << 30))
    bundle = bundle_of(bundle_with_window(24).data + bytes(1 << 20))
    contents = await asyncio.gather(*(unpack_contents(bundle, bundle_unpacker) for _ in range(6)))
    assert [len(each.documents) for each in contents] == [1] * 6


async def test_a_decoder_with_a_large_window_runs_while_documents_of_another_are_in_use() -> None:
    bundle_unpacker = BundleUnpacker(Limits(), ByteBudget(1 << 30))
    data = bundle_with_window(24).data
    async with asyncio.timeout(60), bundle_unpacker.unpacked(data), bundle_unpacker.unpacked(data) as contents:
        assert [bytes(each.data) for each in contents.documents] == [PHOTOGRAPH]


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (b"PK\x05\x06", "no_end_record"),
        (zip_of({}), "empty_bundle"),
        (zip_of({"a": b"", "b": b""}), "too_many_documents"),
    ],
)
async def test_an_unreadable_bundle_is_recorded_with_its_cause(data: bytes, cause: str) -> None:
    contents = await unpack_contents(bundle_of(data), BundleUnpacker(Limits(max_documents=1)))
    assert [(each.name, each.cause) for each in contents.unreadable] == [("", cause)]


async def test_the_unpack_step_of_each_bundle_is_counted_once(counted: MetricGrowth) -> None:
    bundle_unpacker = BundleUnpacker(Limits())
    for bundle in (noise(10), noise(1 << 20), bundle_of(b"PK\x05\x06")):
        await unpack_contents(bundle, bundle_unpacker)
    assert counted[f'docv_step_seconds_count{{step="{Step.UNPACK}"}}'] == 3
