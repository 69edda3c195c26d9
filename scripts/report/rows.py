"""What the archive, and where it is silent the ledger, says of evaluations."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, dataclass

from tasks.bucket import Bucket
from tasks.errors import AlarmingObject
from tasks.evaluation import Evaluation
from tasks.ledger import Ledger
from tasks.manifest import Committed, look_up
from tasks.outcome import Outcome

MISSING = "missing"
"""What is said in the place of an outcome where there is no manifest and no dead letter."""
_AT_ONCE = 64
_SOME = 1_000


@dataclass(frozen=True, slots=True)
class Row:
    """What became of one evaluation.

    Attributes:
        eval_id: the evaluation.
        outcome: its outcome, or ``missing``.
        documents: how many are in the archive.
        bytes: how large they are together.
        manifest: key of the manifest; None where there is none.
        sha256: hash of the manifest's bytes.
        archived_at: when it was made.
        cause: a short fixed word: what could not be read, or why there is no manifest: the cause of the dead letter, or
            where the evaluation stands.
    """

    eval_id: str
    outcome: str
    documents: int = 0
    bytes: int = 0
    manifest: str | None = None
    sha256: str | None = None
    archived_at: str | None = None
    cause: str | None = None

    @property
    def fine(self) -> bool:
        """Whether nobody needs to look."""
        return self.outcome != MISSING and Outcome(self.outcome).fine

    def facts(self) -> dict[str, object]:
        """Return it for a program."""
        return asdict(self)


async def rows(
    bucket: Bucket, environment: str, ledger: Ledger, eval_ids: Sequence[str]
) -> AsyncIterator[Sequence[Row]]:
    """Yield what became of evaluations, in their order, some at a time.

    Raises:
        StoreFailed: the archive did not say.
    """
    at_once = asyncio.Semaphore(_AT_ONCE)

    async def one(eval_id: str) -> Row:
        async with at_once:
            return await _row(bucket, Evaluation(eval_id, environment))

    for start in range(0, len(eval_ids), _SOME):
        found = await asyncio.gather(*map(one, eval_ids[start : start + _SOME]))
        yield await _completed(ledger, found)


async def _row(bucket: Bucket, evaluation: Evaluation) -> Row:
    try:
        committed = await look_up(bucket, evaluation)
    except AlarmingObject as error:
        return Row(evaluation.eval_id, MISSING, manifest=evaluation.manifest_key, cause=error.cause)
    return _told_by(committed, evaluation) if committed else Row(evaluation.eval_id, MISSING)


def _told_by(committed: Committed, evaluation: Evaluation) -> Row:
    manifest = committed.manifest
    documents = [document for document in manifest.documents if not document.superseded]
    return Row(
        eval_id=evaluation.eval_id,
        outcome=manifest.outcome.value,
        documents=len(documents),
        bytes=sum(document.size for document in documents),
        manifest=evaluation.manifest_key,
        sha256=hashlib.sha256(committed.found.data).hexdigest(),
        archived_at=manifest.archived_at,
        cause=min((each.cause for each in manifest.unreadable), default=None),
    )


async def _completed(ledger: Ledger, found: Sequence[Row]) -> Sequence[Row]:
    """Say of those that have no manifest where they are."""
    silent = [row.eval_id for row in found if row.outcome == MISSING and row.cause is None]
    known = dict(zip(silent, await ledger.whereabouts(silent), strict=True))
    return [_placed(row, *known[row.eval_id]) if row.eval_id in known else row for row in found]


def _placed(row: Row, state: str | None, cause: str | None) -> Row:
    outcome = Outcome.FAILED.value if state == "dead" else MISSING
    return Row(row.eval_id, outcome, cause=cause if state == "dead" else state)
