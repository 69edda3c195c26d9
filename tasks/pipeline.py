"""One evaluation's journey into the archive, one line per step."""

import asyncio
from dataclasses import dataclass

from tasks.documents import identify
from tasks.download import Absent, Answer, Bundle
from tasks.errors import BadBundle, ManifestChanged
from tasks.evaluation import Evaluation
from tasks.gate import Gate
from tasks.ledger import Entry
from tasks.manifest import Committed, Manifest, UnreadableRecord, commit, look_up, utc_now
from tasks.outcome import Outcome
from tasks.record import Contents, record
from tasks.request import Line, request
from tasks.store import Shelf, quarantine, store_documents
from tasks.unpack import Limits, unpack

_COMMITS = 3


@dataclass(frozen=True, slots=True)
class Means:
    """What the journey needs: the line to RiskOS, gate and shelf of the archive, and the limits of a bundle."""

    line: Line
    gate: Gate
    shelf: Shelf
    limits: Limits


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
    manifest = record(evaluation, entry.trigger, answer, contents, stored, retrieved_at=retrieved_at)
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
        return Contents()
    return await asyncio.to_thread(_contents, answer, limits)


def _contents(bundle: Bundle, limits: Limits) -> Contents:
    """Unpack and identify; called in a thread, since inflating and hashing would stop the loop."""
    try:
        unpacked = unpack(bundle.data, limits)
    except BadBundle as error:
        return Contents(unreadable=(UnreadableRecord(name="", cause=error.cause),))
    if not unpacked.members and not unpacked.unreadable:
        return Contents(unreadable=(UnreadableRecord(name="", cause="empty_bundle"),))
    return Contents(
        documents=tuple(identify(member) for member in unpacked.members),
        unreadable=tuple(UnreadableRecord(name=each.name, cause=each.cause) for each in unpacked.unreadable),
    )


async def _commit(means: Means, evaluation: Evaluation, manifest: Manifest, before: Committed | None) -> Outcome:
    """Commit the manifest; where another worker was faster, on top of what that one wrote."""
    for _ in range(_COMMITS):
        try:
            return await commit(means.shelf.bucket, evaluation, manifest, before)
        except ManifestChanged:
            before = await look_up(means.shelf.bucket, evaluation)
    raise ManifestChanged
