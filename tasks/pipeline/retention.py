"""Apply erasures of kinds and the retention schedule to the documents of a bundle, before any of them is stored."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime

from tasks.bundle.documents import Document
from tasks.model.evaluation import Evaluation
from tasks.retention.decision import Decision, decide, make_clocks, make_facts
from tasks.retention.event import read_events
from tasks.retention.schedule import Schedule
from tasks.storage.bucket import Bucket
from tasks.storage.manifest import Manifest
from tasks.storage.manifest_records import DisposedRecord
from worker.clients.object_lock import end_of_lock

_READS_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class RetentionPolicy:
    """How long documents are kept.

    Attributes:
        schedule: the retention schedule; None to keep documents until they are erased.
        lock_days: days for which Object Lock keeps an object; None without Object Lock.
        today: returns the current day, UTC.
    """

    schedule: Schedule | None = None
    lock_days: int | None = None
    today: Callable[[], date] = lambda: datetime.now(UTC).date()


@dataclass(frozen=True, slots=True)
class SelectedDocuments:
    """The documents of a bundle that are stored, and those that are not.

    Attributes:
        documents: the documents to store.
        locks: the day on which Object Lock ends, by the key of a document; without it, the lock of the settings.
        disposed: records of the documents that are due or of an erased kind.
    """

    documents: Sequence[Document]
    locks: Mapping[str, date] = field(default_factory=dict)
    disposed: tuple[DisposedRecord, ...] = ()


async def select_documents(
    policy: RetentionPolicy,
    bucket: Bucket,
    evaluation: Evaluation,
    documents: Sequence[Document],
    record: Manifest,
    *,
    now: str,
) -> SelectedDocuments:
    """Select the documents of a bundle that are stored: neither due, nor of an erased kind, nor disposed of before.

    A document that the archive has is kept even if it is due, because only a command disposes of it.

    Args:
        bucket: the archive's bucket, with events and documents.
        documents: the documents, with the kinds of their keys.
        record: the manifest to commit, without these documents.
        now: when they are archived, in the format of ``utc_now``.

    Raises:
        IntegrityError: an event of the evaluation is damaged.
        StorageError: the events, or objects of documents that are due, cannot be read.
    """
    gone = {each.sha256 for each in record.disposed}
    documents = [each for each in documents if each.sha256 not in gone]
    erased = _find_erased(evaluation, documents, record, now)
    hashes, kinds = {each.sha256 for each in erased}, {each.kind for each in record.erased_kinds}
    documents = [each for each in documents if each.kind not in kinds and each.sha256 not in hashes]
    schedule = policy.schedule
    if schedule is None or not documents:
        return SelectedDocuments(documents, disposed=erased)
    # Events are reported only for archived evaluations, so a first delivery needs no listing.
    events = await read_events(bucket, evaluation) if schedule.events and record.revision > 1 else {}
    decided = [
        (each, decide(schedule, make_facts(record, each.kind, each.name), make_clocks(record, each.kind, now, events)))
        for each in documents
    ]
    today = policy.today()
    kept = await _find_kept(bucket, evaluation, decided, record, today)
    locks, due = dict[str, date](), dict[str, DisposedRecord]()
    for each, decision in decided:
        key = evaluation.document_key(each.kind, each.sha256, each.extension)
        if each.sha256 not in kept:
            due[key] = _list_as_disposed(each, key, decision, now)
        elif policy.lock_days:
            until = decision.locked_until(end_of_lock(today, policy.lock_days))
            locks[key] = max(until, locks.get(key, until))
    return SelectedDocuments([each for each in documents if each.sha256 in kept], locks, (*erased, *due.values()))


def _find_erased(
    evaluation: Evaluation, documents: Sequence[Document], record: Manifest, now: str
) -> tuple[DisposedRecord, ...]:
    """Return the records of documents of erased kinds, unless the archive holds the same bytes as another kind."""
    kinds = {each.kind: each for each in record.erased_kinds}
    held = {each.sha256 for each in record.documents}
    keys = {
        evaluation.document_key(each.kind, each.sha256, each.extension): each
        for each in documents
        if each.kind in kinds and each.sha256 not in held
    }
    return tuple(kinds[each.kind].list_disposed(each, key, now) for key, each in keys.items())


async def _find_kept(
    bucket: Bucket, evaluation: Evaluation, decided: Sequence[tuple[Document, Decision]], record: Manifest, today: date
) -> set[str]:
    """Return the hashes of documents that are not due, are under a legal hold, or are in the archive already.

    Bytes with several names and kinds are kept as long as one rule keeps them.
    """
    kept = {each.sha256 for each in record.documents}
    kept |= {each.sha256 for each, decision in decided if record.is_held(each.kind) or not decision.is_due(today)}
    return kept | await _find_stored(bucket, evaluation, [each for each, _ in decided if each.sha256 not in kept])


async def _find_stored(bucket: Bucket, evaluation: Evaluation, documents: Sequence[Document]) -> set[str]:
    """Return the hashes of documents that were stored by an attempt that ended before it wrote its manifest."""
    at_once = asyncio.Semaphore(_READS_AT_ONCE)

    async def find(document: Document) -> bool:
        async with at_once:
            key = evaluation.document_key(document.kind, document.sha256, document.extension)
            return await bucket.read_beginning(key, 1) is not None

    found = await asyncio.gather(*map(find, documents))
    return {each.sha256 for each, is_stored in zip(documents, found, strict=True) if is_stored}


def _list_as_disposed(document: Document, key: str, decision: Decision, now: str) -> DisposedRecord:
    assert decision.rule and decision.rule.clock and decision.started and decision.due  # noqa: S101, PT018  # it is due
    return DisposedRecord(
        kind=document.kind.value,
        key=key,
        sha256=document.sha256,
        size=document.size,
        rule=decision.rule.name,
        clock=decision.rule.clock,
        started=decision.started,
        due=decision.due,
        disposed_at=now,
    )
