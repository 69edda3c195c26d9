"""Apply the retention schedule to the documents of a bundle, before any of them is stored."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime

from tasks.bundle.documents import Document
from tasks.model.evaluation import Evaluation
from tasks.retention.decision import Decision, decide, make_clocks, make_facts
from tasks.retention.event import read_events
from tasks.retention.schedule import Schedule
from tasks.storage.bucket import Bucket
from tasks.storage.manifest import Manifest
from tasks.storage.manifest_records import DisposedRecord


@dataclass(frozen=True, slots=True)
class RetentionPolicy:
    """How long documents are kept.

    Attributes:
        schedule: the retention schedule; None to keep documents until they are erased.
        today: returns the current day, UTC.
    """

    schedule: Schedule | None = None
    today: Callable[[], date] = lambda: datetime.now(UTC).date()


@dataclass(frozen=True, slots=True)
class SelectedDocuments:
    """The documents of a bundle that are stored, and those that are not.

    Attributes:
        documents: the documents to store.
        disposed: records of the documents that were due when they arrived.
    """

    documents: Sequence[Document]
    disposed: tuple[DisposedRecord, ...] = ()


async def select_documents(
    policy: RetentionPolicy,
    bucket: Bucket,
    evaluation: Evaluation,
    documents: Sequence[Document],
    record: Manifest,
    *,
    archived_at: str,
) -> SelectedDocuments:
    """Select the documents of a bundle that are stored: neither due nor disposed of before.

    A held document is stored again even if it is due, because only a command disposes of it.

    Args:
        bucket: the bucket of the events.
        documents: the documents, with the kinds of their keys.
        record: the manifest to commit, without these documents.
        archived_at: when they are archived, in the format of ``utc_now``.

    Raises:
        IntegrityError: an event of the evaluation is damaged.
        StorageError: the events cannot be read.
    """
    gone = {each.sha256 for each in record.disposed}
    documents = [each for each in documents if each.sha256 not in gone]
    schedule = policy.schedule
    if schedule is None or not documents:
        return SelectedDocuments(documents)
    # Events are reported of archived evaluations only, so a first delivery needs no listing.
    events = await read_events(bucket, evaluation) if schedule.events and record.revision > 1 else {}
    decisions = [
        decide(
            schedule,
            make_facts(record, each.kind, each.name),
            make_clocks(record, each.kind, archived_at, events),
        )
        for each in documents
    ]
    today = policy.today()
    # The same bytes may have several names and kinds; the one that is kept longest decides.
    kept = {each.sha256 for each in record.documents}
    kept |= {each.sha256 for each, decision in zip(documents, decisions, strict=True) if not decision.is_due(today)}
    due = {
        key: _list_as_disposed(each, key, decision, archived_at)
        for each, decision in zip(documents, decisions, strict=True)
        if each.sha256 not in kept and (key := evaluation.document_key(each.kind, each.sha256, each.extension))
    }
    return SelectedDocuments([each for each in documents if each.sha256 in kept], tuple(due.values()))


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
