"""One evaluation's journey into the archive, one line per step."""

import asyncio
from dataclasses import dataclass

from tasks.documents import Document, identify
from tasks.download import Absent, Answer, Bundle
from tasks.errors import BadBundle, ManifestChanged
from tasks.evaluation import Evaluation
from tasks.ledger import Entry
from tasks.manifest import (
    BundleRecord,
    Committed,
    DocumentRecord,
    Manifest,
    ResponseRecord,
    TriggerRecord,
    UnreadableRecord,
    archiver,
    commit,
    look_up,
    tombstone_reason,
    utc_now,
)
from tasks.outcome import Outcome
from tasks.request import Line, request
from tasks.store import Shelf, StoredDocument, quarantine, store_documents
from tasks.unpack import Limits, Unreadable, unpack

_COMMITS = 3
_OK = 200


@dataclass(frozen=True, slots=True)
class Means:
    """What the journey needs: the line to RiskOS, the shelf in the archive, and the limits of a bundle."""

    line: Line
    shelf: Shelf
    limits: Limits


@dataclass(frozen=True, slots=True)
class Contents:
    """What was in a bundle, as far as it could be read."""

    documents: tuple[Document, ...]
    unreadable: tuple[UnreadableRecord, ...]


async def archive(entry: Entry, means: Means) -> Outcome:
    """Carry one evaluation into the archive and return how it ended.

    Raises:
        ArchiveError: the attempt was stopped; ``tasks.retrying.decide`` knows what then.
    """
    account = means.line.account
    evaluation = Evaluation(entry.eval_id, account.environment, account.name)
    before = await look_up(means.shelf.bucket, evaluation)
    if before and not entry.refresh:
        return Outcome.UNCHANGED
    answer, contents = await _retrieve(entry, evaluation, means)
    retrieved_at = utc_now()
    stored = await store_documents(means.shelf, evaluation, contents.documents, archived_at=retrieved_at)
    if isinstance(answer, Bundle) and contents.unreadable:
        await quarantine(means.shelf, evaluation, answer)
    manifest = _record(
        entry=entry,
        evaluation=evaluation,
        answer=answer,
        contents=contents,
        stored=stored,
        retrieved_at=retrieved_at,
    )
    return await _commit(means, evaluation, manifest, before)


async def _retrieve(entry: Entry, evaluation: Evaluation, means: Means) -> tuple[Answer, Contents]:
    """Download and unpack; a bundle that cannot be read whole is fetched again, once, before it is believed."""
    answer = await request(means.line, evaluation, entry.queue)
    contents = await _open(answer, means.limits)
    if contents.unreadable:
        again = await request(means.line, evaluation, entry.queue)
        found = await _open(again, means.limits)
        if isinstance(again, Absent) or len(found.documents) >= len(contents.documents):
            return again, found
    return answer, contents


async def _open(answer: Answer, limits: Limits) -> Contents:
    if isinstance(answer, Absent):
        return Contents((), ())
    return await asyncio.to_thread(_contents, answer, limits)


def _contents(bundle: Bundle, limits: Limits) -> Contents:
    """Unpack and identify; called in a thread, since inflating and hashing would stop the loop."""
    try:
        unpacked = unpack(bundle.data, limits)
    except BadBundle as error:
        return Contents((), (UnreadableRecord(name="", cause=error.cause),))
    if not unpacked.members and not unpacked.unreadable:
        return Contents((), (UnreadableRecord(name="", cause="empty_bundle"),))
    return Contents(
        documents=tuple(identify(member) for member in unpacked.members),
        unreadable=tuple(_unreadable(each) for each in unpacked.unreadable),
    )


def _record(
    *,
    entry: Entry,
    evaluation: Evaluation,
    answer: Answer,
    contents: Contents,
    stored: list[StoredDocument],
    retrieved_at: str,
) -> Manifest:
    outcome = _outcome(answer, contents)
    trigger = entry.trigger
    return Manifest(
        schema=1,
        eval_id=evaluation.eval_id,
        environment=evaluation.environment,  # type: ignore[arg-type]  # checked by pydantic
        account=evaluation.account,
        outcome=outcome,  # type: ignore[arg-type]  # checked by pydantic
        revision=1,
        previous=None,
        documents=tuple(_document(each) for each in stored),
        unreadable=contents.unreadable,
        bundle=_bundle(answer),
        response=ResponseRecord(
            status=answer.status if isinstance(answer, Absent) else _OK,
            message=answer.message if isinstance(answer, Absent) else None,
        ),
        no_documents=tombstone_reason(outcome),
        trigger=TriggerRecord(
            source=trigger.source, run=trigger.run, event_type=trigger.event_type, event_id=trigger.event_id
        ),
        retrieved_at=retrieved_at,
        archived_at=utc_now(),
        archiver=archiver(),
    )


def _outcome(answer: Answer, contents: Contents) -> Outcome:
    if isinstance(answer, Absent):
        return answer.outcome
    return Outcome.UNREADABLE if contents.unreadable else Outcome.ARCHIVED


def _document(stored: StoredDocument) -> DocumentRecord:
    document = stored.document
    return DocumentRecord(
        name=document.name,
        kind=document.kind.value,
        key=stored.key,
        media_type=document.media_type,
        size=document.size,
        sha256=document.sha256,
        modified=document.modified,
        named_as=document.name_mismatch,
    )


def _unreadable(unreadable: Unreadable) -> UnreadableRecord:
    return UnreadableRecord(name=unreadable.name, cause=unreadable.cause)


def _bundle(answer: Answer) -> BundleRecord | None:
    if isinstance(answer, Absent):
        return None
    return BundleRecord(filename=answer.filename, size=len(answer.data), sha256=answer.sha256)


async def _commit(means: Means, evaluation: Evaluation, manifest: Manifest, before: Committed | None) -> Outcome:
    """Commit the manifest; where another worker was faster, on top of what that one wrote."""
    for _ in range(_COMMITS):
        try:
            return await commit(means.shelf.bucket, evaluation, manifest, before)
        except ManifestChanged:
            before = await look_up(means.shelf.bucket, evaluation)
    raise ManifestChanged
