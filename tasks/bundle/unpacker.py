"""From a bundle to what is in it: when there is memory for it, in its turn, on the loop or beside it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from pathlib import Path

from tasks.bundle.documents import Document, KindPattern, identify
from tasks.bundle.unpack import SMALL_BUNDLE, Limits, Unpacked, unpack, unpack_small
from tasks.errors import BadBundle
from tasks.memory.buffer_pool import Buffer
from tasks.memory.byte_budget import ByteBudget
from tasks.model.outcome import EMPTY_FILE
from tasks.storage.manifest import UnreadableRecord
from tasks.telemetry.tracing import span
from worker.metrics.worker_metrics import Step, timed

_LARGE = 8 << 20
_THREADS = 2
_SMALL = 64 << 10
_MEMORY = 128 << 20


@dataclass(frozen=True, slots=True)
class BundleContents:
    """What was in a bundle, as far as it could be read."""

    documents: tuple[Document, ...] = ()
    unreadable: tuple[UnreadableRecord, ...] = ()

    @property
    def is_damaged(self) -> bool:
        """Whether something in the bundle could not be read, or nothing in it has content."""
        is_empty = bool(self.unreadable) and not self.documents
        return is_empty or any(each.cause != EMPTY_FILE for each in self.unreadable)


class BundleUnpacker:
    """Opens bundles, one after the other or nearly so.

    All at once, those whose answers came together would end together, and so ask together again: between two such waves
    nobody would do anything. What takes long is opened in a thread. What does not, some photographs in a megabyte, is
    opened on the loop, which stands still for some milliseconds then: a thread and the loop would hand the interpreter
    to and fro, which costs processor time (docs/performance.md). But who waits for a turn at RiskOS would be late for
    it, and where turns are waited for it is the rate that bounds what is done, not the processor.

    Args:
        limits: of a bundle.
        memory: bytes of unpacked documents that this process may hold.
        spool_dir: for what is larger; the system's folder for temporary files where it is None.
        avoid_blocking: whether the loop has to be on time for somebody, and so must not stand still.
        kind_patterns: patterns of names that are tried after the built-in ones.
    """

    def __init__(
        self,
        limits: Limits,
        memory: ByteBudget | None = None,
        spool_dir: Path | None = None,
        avoid_blocking: Callable[[], bool] = lambda: False,
        kind_patterns: Sequence[KindPattern] = (),
    ) -> None:
        self._limits, self._spool_dir, self._avoid_blocking = limits, spool_dir, avoid_blocking
        self._kind_patterns = kind_patterns
        self._memory = memory or ByteBudget(_MEMORY)
        self._loop_lock, self._thread_slots = asyncio.Semaphore(), asyncio.Semaphore(_THREADS)

    @contextlib.asynccontextmanager
    async def unpacked(self, data: Buffer | None) -> AsyncIterator[BundleContents]:
        """Lend what is in a bundle, nothing where there is none, for as long as the block lasts."""
        if data is None:
            yield BundleContents()
            return
        # Photographs unpack to about their own size. What unpacks to more than that goes to disk.
        in_memory = min(self._limits.in_memory, 2 * len(data) + _SMALL)
        async with self._memory.reserve(in_memory):
            async with self._acquire_slot(len(data)):
                with timed(Step.UNPACK), span("unpack", bytes=len(data)):
                    contents = await self._unpack(data, replace(self._limits, in_memory=in_memory))
                # Others do what they have to do before the next bundle is opened.
                await asyncio.sleep(0)
            del data  # whoever opened it says how long its bytes are there
            yield contents

    def _acquire_slot(self, size: int) -> AbstractAsyncContextManager[None]:
        if size <= SMALL_BUNDLE:
            return self._loop_lock
        return self._thread_slots if size <= _LARGE else contextlib.nullcontext()

    async def _unpack(self, data: Buffer, limits: Limits) -> BundleContents:
        little = None if self._avoid_blocking() else unpack_small(data, limits)
        if little is not None:
            return self._identify_all(little)
        return await asyncio.to_thread(self._unpack_in_thread, data, limits)

    def _unpack_in_thread(self, data: Buffer, limits: Limits) -> BundleContents:
        try:
            return self._identify_all(unpack_small(data, limits) or unpack(data, limits, self._spool_dir))
        except BadBundle as error:
            return BundleContents(unreadable=(UnreadableRecord(name="", cause=error.cause),))

    def _identify_all(self, unpacked: Unpacked) -> BundleContents:
        if not unpacked.members and not unpacked.unreadable:
            return BundleContents(unreadable=(UnreadableRecord(name="", cause="empty_bundle"),))
        unreadable = [UnreadableRecord(name=each.name, cause=each.cause) for each in unpacked.unreadable]
        unreadable += [UnreadableRecord(name=each.name, cause=EMPTY_FILE) for each in unpacked.members if not each.size]
        return BundleContents(
            documents=tuple(identify(member, self._kind_patterns) for member in unpacked.members if member.size),
            unreadable=tuple(unreadable),
        )
