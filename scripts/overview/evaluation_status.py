"""Look up an evaluation in the ledger and in the archive: its state, its outcome, and what the archive holds."""

import enum
from dataclasses import dataclass, replace

from redis.asyncio import Redis

from scripts.archive_access.evaluation_rows import MISSING, EvaluationRow, make_row
from tasks.errors import IntegrityError
from tasks.ledger.entries import LedgerEntry, find_entry
from tasks.model.evaluation import Evaluation
from tasks.model.job import Queue
from tasks.model.outcome import Outcome
from tasks.resilience.holds import ARCHIVE, Holds, backfill_of
from tasks.storage.bucket import Bucket
from tasks.storage.manifest import StoredManifest, format_utc, read_manifest


class EvaluationState(enum.StrEnum):
    """The state of an evaluation."""

    QUEUED = "queued"
    """It waits for a worker."""
    IN_FLIGHT = "in_flight"
    """A worker has it."""
    PARKED = "parked"
    """It waits until it is due: it settles first, or its last attempt failed."""
    ON_HOLD = "on_hold"
    """It waits for a hold of its account, of the archive or of its run to end."""
    DEAD_LETTER = "dead_letter"
    """It is out of attempts; a redrive, or a new order, tries it again."""
    DAMAGED = "damaged"
    """Its entry in Redis cannot be read; send it again."""
    ENDED = "ended"
    """It has its outcome."""


_STATES = {
    "queued": EvaluationState.QUEUED,
    "leased": EvaluationState.IN_FLIGHT,
    "parked": EvaluationState.PARKED,
    "held": EvaluationState.ON_HOLD,
    "dead": EvaluationState.DEAD_LETTER,
    "damaged": EvaluationState.DAMAGED,
}


@dataclass(frozen=True, slots=True)
class EvaluationStatus:
    """What the ledger and the archive know about an evaluation.

    Attributes:
        state: its state, or None if neither of them knows it.
        outcome: how it ended, ``missing`` if neither knows it, None until it has ended.
        cause: what stopped its last attempt, or why something is not in the archive: a short fixed word.
        next_attempt_at: when the next attempt is due, RFC 3339 in UTC; None if that is not known.
        archived: the row of the archive, regardless of its state in the ledger.
        manifest: the current manifest, if there is one.
    """

    state: EvaluationState | None
    outcome: str | None
    cause: str | None
    next_attempt_at: str | None
    archived: EvaluationRow
    manifest: StoredManifest | None

    def as_json(self) -> dict[str, object]:
        """Return the status as JSON: numbers, a key and names of legal holds, but no name from a bundle."""
        return {
            "eval_id": self.archived.eval_id,
            "state": self.state,
            "outcome": self.outcome,
            "cause": self.cause,
            "reason": self.archived.reason,
            "restricted": self.archived.restricted,
            "next_attempt_at": self.next_attempt_at,
            "documents": self.archived.documents,
            "bytes": self.archived.bytes,
            "at_source": self.archived.at_source,
            "manifest": self.archived.manifest,
            "disposed": self.archived.disposed,
            "matters": self.manifest.manifest.matters if self.manifest else (),
        }


async def look_up(redis: "Redis | None", bucket: Bucket, evaluation: Evaluation) -> EvaluationStatus:
    """Return what is known about an evaluation.

    Args:
        redis: client of the Redis with the ledger; None to read the archive only.
        bucket: the archive.
        evaluation: the evaluation.

    Raises:
        RedisError: Redis cannot be read.
        StorageError: the archive cannot be read.
        IntegrityError: there is only a manifest, and it is damaged.
    """
    # Read the ledger first: it drops an evaluation only after the manifest is written.
    entry = await find_entry(redis, evaluation.eval_id) if redis else None
    try:
        stored = await read_manifest(bucket, evaluation)
    except IntegrityError:
        if entry is None:
            raise
        stored = None  # probably the reason for the dead letter, which has to stay visible
    archived = make_row(evaluation, stored) if stored else EvaluationRow(evaluation.eval_id, MISSING)
    status = EvaluationStatus(
        state=EvaluationState.ENDED if stored else None,
        outcome=archived.outcome,
        cause=archived.cause,
        next_attempt_at=None,
        archived=archived,
        manifest=stored,
    )
    if redis is None or entry is None:
        return status
    state = _STATES[entry.state]
    return replace(
        status,
        state=state,
        outcome=Outcome.FAILED.value if state is EvaluationState.DEAD_LETTER else None,
        cause=entry.cause,
        next_attempt_at=await _next_attempt_at(redis, entry),
    )


async def _next_attempt_at(redis: "Redis", entry: LedgerEntry) -> str | None:
    """Return when a parked evaluation is due, or when the hold that it waits for ends or is probed next."""
    if entry.due_at is not None:
        return format_utc(entry.due_at)
    if entry.state != "held":
        return None
    scopes = [entry.account, ARCHIVE, *([backfill_of(entry.account)] if entry.queue is Queue.BACKFILL else [])]
    holds = [hold for hold in await Holds(redis).get_each(*scopes) if hold]
    if not holds or any(hold.is_manual for hold in holds):
        return None
    return format_utc(entry.read_at + max(hold.remaining for hold in holds))
