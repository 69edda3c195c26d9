"""Apply a plan: dispose of its documents, wait once for workers, sweep again, and write the certificates.

Every step can be repeated: the manifests list the disposals, and the certificates are written from them.
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import asdict, dataclass, field
from typing import TypeVar

import click

from scripts.console.formatting import format_bytes, format_count
from scripts.erase.stock import NotRemoved
from scripts.retention.assessment import DocumentState
from scripts.retention.certificate import Operator, certify
from scripts.retention.disposal import Disposal, Disposer, IsIdle, StillWritten, SweptEvaluation
from scripts.retention.plan_file import Plan, PlannedEvaluation
from scripts.verify.ordered_gather import ordered_gather
from tasks.errors import IntegrityError, ManifestChanged
from tasks.storage.manifest_records import DisposedRecord

PART = 5_000
"""Evaluations of an environment whose disposals share a certificate: memory grows with them."""
_AT_ONCE = 8
_MOST_REFUSED = 100
"""After this many evaluations with objects that cannot be removed, the cause must be the permissions of the process."""
Result = TypeVar("Result")
_Placed = tuple[PlannedEvaluation, int]


@dataclass(frozen=True, slots=True)
class CertificateSummary:
    """A certificate that an application wrote or found complete.

    Attributes:
        key: its key.
        rule: the rule.
        documents: number of documents that it lists.
        bytes: their total size.
    """

    key: str
    rule: str
    documents: int
    bytes: int


@dataclass(slots=True)
class ApplicationResult:
    """What an application did.

    Attributes:
        documents: documents of the plan that are gone, or that would be disposed of in a dry run.
        bytes: their total size.
        held_back: documents of the plan that were not disposed of, by their state.
        kept: documents that are disposed of and still stored, under a lock or a legal hold that was set meanwhile.
        failed: evaluations that could not be processed, and certificates that could not be written.
        certificates: the certificates that list the documents.
    """

    documents: int = 0
    bytes: int = 0
    held_back: Counter[DocumentState] = field(default_factory=Counter)
    kept: int = 0
    failed: set[str] = field(default_factory=set)
    certificates: dict[str, CertificateSummary] = field(default_factory=dict)

    def as_json(self) -> dict[str, object]:
        """Return the result as a JSON object."""
        return {
            "documents": self.documents,
            "bytes": self.bytes,
            "held_back": {state.value: count for state, count in sorted(self.held_back.items()) if count},
            "still_there": self.kept,
            "failed": len(self.failed),
            "certificates": [asdict(each) for each in self.certificates.values()],
        }

    def sentences(self, *, dry_run: bool) -> Iterator[str]:
        """Yield the result in sentences."""
        verb = "would be disposed of" if dry_run else "disposed of"
        yield f"{format_count(self.documents, 'document')} ({format_bytes(self.bytes)}) {verb}"
        for each in self.certificates.values():
            yield f"{each.rule}: {format_count(each.documents, 'document')}; the certificate is {each.key}"
        for state, count in sorted(self.held_back.items()):
            if count:
                yield f"{format_count(count, 'document')} held back: {_REASONS[state]}"
        if self.kept:
            yield (
                f"{format_count(self.kept, 'document')} disposed of but still there, under a lock or a legal hold that "
                "came meanwhile; the first application after its end removes them"
            )


_REASONS = {
    DocumentState.HOLD: "a legal hold",
    DocumentState.COMPLIANCE_LOCK: "a COMPLIANCE lock",
    DocumentState.GOVERNANCE_LOCK: "a GOVERNANCE lock",
    DocumentState.REVIEW: "the rule asks for a review",
    DocumentState.GRACE: "the grace after the report of an event",
    DocumentState.CLOCK: "the clock has not started",
    DocumentState.KEPT: "no longer due",
}


class Application:
    """The application of one plan.

    Args:
        plan: the plan.
        disposer: disposes of documents of one evaluation.
        operator: completes the certificates.
        rate: evaluations per second.
        wait: waits until no worker that lost its lease can be writing.
        open_leases: yields a function that returns whether no worker has a lease of an evaluation.
    """

    def __init__(
        self,
        plan: Plan,
        disposer: Disposer,
        operator: Operator,
        *,
        rate: float,
        wait: Callable[[], Awaitable[None]],
        open_leases: Callable[[], AbstractAsyncContextManager[IsIdle]],
    ) -> None:
        self._plan, self._disposer, self._operator = plan, disposer, operator
        self._rate, self._wait, self._open_leases = rate, wait, open_leases
        self._result, self._refused = ApplicationResult(), set[str]()
        self._certified = defaultdict[str, Counter[tuple[str, str]]](Counter)

    async def run(self, *, dry_run: bool = False) -> ApplicationResult:
        """Apply the plan; if that was interrupted, the same call completes it.

        Raises:
            ServiceUnavailable: S3, or the folder, refuses or fails.
            StorageError: the same.
        """
        if await self._dispose(dry_run=dry_run):
            await self._wait()
            async with self._open_leases() as is_idle:
                await self._sweep(is_idle)
        return self._result

    async def _dispose(self, *, dry_run: bool) -> bool:
        """Dispose of the documents; return whether a manifest lists disposals of this plan."""
        is_listed = False

        async def work(placed: _Placed) -> Disposal:
            disposing = self._disposer.dispose(*placed, dry_run=dry_run)
            return await self._tolerate(placed[0].eval_id, disposing) or Disposal()

        disposals = ordered_gather(_AT_ONCE, work, self._paced())
        async with aclosing(disposals):  # type: ignore[type-var]  # it is a generator
            async for each in disposals:
                is_listed |= each.is_listed
                self._result.held_back += each.held_back
                if dry_run:
                    self._count(due.document.size for due in each.due)
        return is_listed

    async def _sweep(self, is_idle: IsIdle) -> None:
        """Sweep all evaluations again, and write the certificates of each part."""
        disposals, current = defaultdict[str, list[Sequence[DisposedRecord]]](list), ("", 0)

        async def work(placed: _Placed) -> tuple[_Placed, SweptEvaluation]:
            swept = await self._tolerate(placed[0].eval_id, self._disposer.sweep(*placed, is_idle))
            return placed, swept or SweptEvaluation()

        found = ordered_gather(_AT_ONCE, work, self._paced())
        async with aclosing(found):  # type: ignore[type-var]  # it is a generator
            async for (planned, part), swept in found:
                if (planned.environment, part) != current:
                    await self._certify(disposals)
                    disposals.clear()
                    current = (planned.environment, part)
                self._result.kept += swept.kept
                for key, records in swept.disposals.items():
                    disposals[key].append(records)
                    self._count(each.size for each in records)
        await self._certify(disposals)

    async def _certify(self, disposals: Mapping[str, Sequence[Sequence[DisposedRecord]]]) -> None:
        keys = self._disposer.keys
        for key, records in disposals.items():
            plan = self._plan.sha256 if keys.is_own(key) else None
            writing = certify(self._disposer.stores.bucket, key, records, plan, self._operator, self._certified[key])
            if done := await self._tolerate(key, writing):
                if plan is None:  # a later part of this plan may complete the same certificate
                    self._certified[key].update((each.kind, each.sha256) for some in records for each in some)
                self._result.certificates[key] = CertificateSummary(key, done.rule, len(done.documents), done.bytes)

    async def _tolerate(self, name: str, work: Awaitable[Result]) -> Result | None:
        """Return the result of work, or None if an object of the archive prevents it, which is printed."""
        try:
            return await work
        except (IntegrityError, ManifestChanged, StillWritten, NotRemoved) as error:
            if isinstance(error, NotRemoved):
                self._refused.add(name)
                if len(self._refused) > _MOST_REFUSED:
                    raise
            self._result.failed.add(name)
            click.echo(f"docv-archive: {name}: {error or 'other processes keep changing it'}", err=True)
            return None

    def _count(self, sizes: Iterable[int]) -> None:
        for size in sizes:
            self._result.documents += 1
            self._result.bytes += size

    async def _paced(self) -> AsyncIterator[_Placed]:
        """Yield the evaluations of the plan, each with the number of its part, at the rate."""
        loop, numbers = asyncio.get_running_loop(), Counter[str]()
        due = loop.time()
        for planned in self._plan.evaluations():
            if (left := due - loop.time()) > 0:
                await asyncio.sleep(left)
            due = max(due, loop.time()) + 1 / self._rate
            yield planned, numbers[planned.environment] // PART
            numbers[planned.environment] += 1
