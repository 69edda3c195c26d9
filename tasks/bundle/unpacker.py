"""Unpack bundles in threads, within a memory budget, and identify their documents."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tasks.bundle.documents import Document, KindPattern, identify
from tasks.bundle.unpack import unpack
from tasks.bundle.zip import NO_PADDING, Limits, Padding, Unpacked, WindowNeeded
from tasks.bundle.zip_recovery import rebuild_zip
from tasks.errors import BadBundle
from tasks.memory.buffer_pool import Buffer
from tasks.memory.byte_budget import ByteBudget
from tasks.model.outcome import EMPTY_FILE
from tasks.storage.manifest_records import UnreadableRecord
from tasks.telemetry.tracing import span
from worker.metrics.worker_metrics import Step, timed

_LARGE = 8 << 20
_THREADS = 2
_LARGE_WINDOW = 8 << 20  # the window of the default preset of xz and 7-Zip
_SMALL = 64 << 10
_MEMORY = 128 << 20


@dataclass(frozen=True, slots=True)
class BundleContents:
    """The readable and unreadable members of a bundle.

    Attributes:
        documents: members with content.
        unreadable: members that are empty or could not be read; an empty name stands for the whole bundle.
        padding: bytes around the ZIP that carry no meaning.
        lenient: the cause of the refusal, if documents were recovered from a refused bundle.
    """

    documents: tuple[Document, ...] = ()
    unreadable: tuple[UnreadableRecord, ...] = ()
    padding: Padding = NO_PADDING
    lenient: str | None = None

    @property
    def is_damaged(self) -> bool:
        """Return whether part of the bundle could not be read, or no member has content."""
        is_empty = bool(self.unreadable) and not self.documents
        return is_empty or any(each.cause != EMPTY_FILE for each in self.unreadable)


class BundleUnpacker:
    """Unpack two bundles at a time; bundles above 8 MiB do not count towards the two.

    Without the limit, bundles that arrive together would also finish together. The next ones would then be requested
    together, and the process would be idle in between.

    Args:
        limits: the limits on each bundle.
        memory: the budget of this process for unpacked documents and decoder windows, in bytes.
        spool_dir: the folder for documents that exceed the memory limit; the system's temporary folder by default.
        kind_patterns: name patterns to try after the built-in ones.
    """

    def __init__(
        self,
        limits: Limits,
        memory: ByteBudget | None = None,
        spool_dir: Path | None = None,
        kind_patterns: Sequence[KindPattern] = (),
    ) -> None:
        self._limits, self._spool_dir, self._kind_patterns = limits, spool_dir, kind_patterns
        self._memory = memory or ByteBudget(_MEMORY)
        self._slots = asyncio.Semaphore(_THREADS)
        self._large_window_slot = asyncio.Semaphore()

    @contextlib.asynccontextmanager
    async def unpacked(self, data: Buffer | None, *, lenient: bool = False) -> AsyncIterator[BundleContents]:
        """Provide the contents of a bundle inside the block; they are empty if ``data`` is None.

        Args:
            lenient: recover the intact members of a bundle that is refused.
        """
        if data is None:
            yield BundleContents()
            return
        # Photographs unpack to about their compressed size. Bundles that unpack to much more go to disk.
        limits = replace(
            self._limits, in_memory=min(self._limits.in_memory, 2 * len(data) + _SMALL), max_window_bytes=0
        )
        while True:
            async with contextlib.AsyncExitStack() as decoding:
                if limits.max_window_bytes > _LARGE_WINDOW:
                    await decoding.enter_async_context(self._large_window_slot)
                async with self._memory.reserve(limits.in_memory + limits.max_window_bytes) as reserved:
                    try:
                        contents = await self._unpack_in_slot(data, limits, lenient=lenient)
                    except WindowNeeded as needed:
                        limits = replace(limits, max_window_bytes=needed.size)
                        continue
                    await decoding.aclose()
                    size = sum(each.size for each in contents.documents)
                    reserved.shrink(size if size <= limits.in_memory else 0)  # larger contents are on disk
                    del data  # the caller decides how long to keep the bundle in memory
                    yield contents
                    return

    async def _unpack_in_slot(self, data: Buffer, limits: Limits, *, lenient: bool) -> BundleContents:
        async with self._slots if len(data) <= _LARGE else contextlib.nullcontext():
            with timed(Step.UNPACK), span("unpack", bytes=len(data)):
                return await asyncio.to_thread(self._unpack, data, limits, lenient=lenient)

    def _unpack(self, data: Buffer, limits: Limits, *, lenient: bool) -> BundleContents:
        try:
            return self._identify_all(unpack(data, limits, self._spool_dir))
        except BadBundle as error:
            found = self._recover(data, limits, error.cause) if lenient else None
            return found or BundleContents(unreadable=(UnreadableRecord(name="", cause=error.cause),))

    def _recover(self, data: Buffer, limits: Limits, cause: str) -> BundleContents | None:
        """Return the recoverable contents of a refused bundle; None if no document is left or a limit is exceeded."""
        rebuilt = rebuild_zip(data, self._spool_dir)
        try:
            contents = self._identify_all(unpack(rebuilt.data, limits, self._spool_dir)) if rebuilt else None
        except BadBundle:
            return None
        if rebuilt is None or contents is None or not contents.documents:
            return None
        # Without its complete directory, it is unknown whether the bundle held more members.
        refused = () if rebuilt.is_complete else (UnreadableRecord(name="", cause=cause),)
        return replace(contents, unreadable=(*contents.unreadable, *refused), lenient=cause)

    def _identify_all(self, unpacked: Unpacked) -> BundleContents:
        if not unpacked.members and not unpacked.unreadable:
            return BundleContents(unreadable=(UnreadableRecord(name="", cause="empty_bundle"),))
        unreadable = [UnreadableRecord(name=each.name, cause=each.cause) for each in unpacked.unreadable]
        unreadable += [UnreadableRecord(name=each.name, cause=EMPTY_FILE) for each in unpacked.members if not each.size]
        return BundleContents(
            documents=tuple(identify(member, self._kind_patterns) for member in unpacked.members if member.size),
            unreadable=tuple(unreadable),
            padding=unpacked.padding,
        )
