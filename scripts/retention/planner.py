"""Make a plan: count due and waiting documents, and write a line for each evaluation with due documents."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta

from scripts.erase.stock import VersionLock
from scripts.retention.assessment import AssessedDocument, DocumentState, assess, state_of_lock
from scripts.retention.certificate_index import CertificateIndex
from scripts.retention.plan_counts import PlanCounts
from scripts.retention.plan_file import PlanWriter
from scripts.retention.walk import WalkedEvaluation
from tasks.model.evaluation import Evaluation
from tasks.retention.schedule import Schedule

MOST_LOCKS = 10_000
"""Maximum number of locks that a plan looks up. A request of boto3 takes ten times as long as reading a manifest."""
FindRetention = Callable[[str], VersionLock | None]


@dataclass(frozen=True, slots=True)
class ExaminedEvaluation:
    """What the schedule says about an evaluation.

    Attributes:
        evaluation: the evaluation.
        documents: each document that the archive holds; None if the manifest or an event cannot be read.
        open: keys of certificates that do not list all of its disposals yet.
        unfinished: disposals that no certificate lists yet.
        bundles: its bundles in quarantine.
    """

    evaluation: Evaluation
    documents: Sequence[AssessedDocument] | None
    open: Sequence[str] = ()
    unfinished: int = 0
    bundles: int = 0


class Planner:
    """Examines evaluations, and counts and writes the findings.

    Args:
        schedule: the retention schedule.
        today: the current day.
        until: the day of the plan.
        index: finds interrupted applications.
        find_retention: returns the retention of the object with a key; None if the archive has no locks.
        writer: writes the plan; None to count only.

    Attributes:
        counts: the counts so far.
    """

    def __init__(
        self,
        schedule: Schedule,
        today: date,
        until: date,
        index: CertificateIndex,
        find_retention: FindRetention | None = None,
        writer: PlanWriter | None = None,
    ) -> None:
        self._schedule, self._today, self._until, self._index = schedule, today, until, index
        self._find_retention, self._writer, self._left = find_retention, writer, MOST_LOCKS
        self.counts = PlanCounts()

    async def examine(self, walked: WalkedEvaluation) -> ExaminedEvaluation:
        """Return what the schedule says about an evaluation.

        Raises:
            ServiceUnavailable: a lock cannot be looked up.
            StorageError: a certificate cannot be read.
        """
        manifest = walked.manifest
        if manifest is None:
            return ExaminedEvaluation(walked.evaluation, None)
        unfinished = await self._index.find_open(manifest) if manifest.disposed else ()
        assessed = assess(self._schedule, manifest, walked.events, self._until)
        documents = await self._look_up_locks(assessed)
        receipts = tuple(dict.fromkeys(each.receipt for each in unfinished if each.receipt))
        bundles = len(manifest.quarantined_bundles)
        return ExaminedEvaluation(walked.evaluation, documents, receipts, len(unfinished), bundles)

    async def _look_up_locks(self, documents: Sequence[AssessedDocument]) -> list[AssessedDocument]:
        """Look up the locks of due documents; documents with the same bytes wait for the last one of them."""
        if not any(each.state is DocumentState.DUE for each in documents):
            return list(documents)
        found = [await self._look_up_lock(each) if each.state is DocumentState.DUE else each for each in documents]
        last = {
            each.document.sha256: each
            for each in sorted(found, key=lambda each: each.disposable_from or date.min)
            if each.disposable_from
        }
        return [
            replace(each, state=last_one.state, disposable_from=last_one.disposable_from)
            if (last_one := last.get(each.document.sha256))
            else each
            for each in found
        ]

    async def _look_up_lock(self, assessed: AssessedDocument) -> AssessedDocument:
        """Return a due document with its day of disposal, and as locked if its lock outlasts the plan."""
        disposable_from, state = max(assessed.disposable_from or self._today, self._today), DocumentState.DUE
        lock = await self._find_lock(assessed.document.key)
        if lock and lock.until:
            disposable_from = max(disposable_from, first_free_day(lock.until))
            state = state_of_lock(lock) if disposable_from > self._until else state
        return replace(assessed, state=state, disposable_from=disposable_from)

    async def _find_lock(self, key: str) -> VersionLock | None:
        if self._find_retention is None:
            return None
        if self._left == 0:
            self.counts.unchecked += 1
            return None
        self._left -= 1
        return await asyncio.to_thread(self._find_retention, key)

    def add(self, examined: ExaminedEvaluation) -> None:
        """Count the findings, and write the line if there are due documents or unfinished certificates."""
        counts, evaluation = self.counts, examined.evaluation
        counts.add(examined.documents or ())
        counts.unfinished += examined.unfinished
        if examined.documents is None:
            counts.damaged += 1
            return
        due = [each for each in examined.documents if each.state is DocumentState.DUE]
        counts.in_quarantine += examined.bundles
        if self._writer and (due or examined.open):
            self._writer.add(evaluation, due, examined.open)


def first_free_day(until: datetime) -> date:
    """Return the first day that begins at or after the end of a lock."""
    moment = until.astimezone(UTC)
    return (moment + timedelta(days=1) - timedelta.resolution).date()
