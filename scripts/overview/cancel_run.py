"""Cancel a run as a person does: first in the ledger, then in the list that the archive keeps of it."""

from dataclasses import dataclass

from redis.asyncio import Redis

from tasks.ledger.cancellation import CancelCounts, Cancellation
from tasks.ledger.ledger import Ledger
from tasks.storage.bucket import Bucket
from tasks.storage.run_list import find_run_list, mark_cancelled


@dataclass(frozen=True, slots=True)
class StoppedRun:
    """A run that was cancelled in the ledger.

    Attributes:
        run: its name.
        counts: how many evaluations that concerned.
        fingerprint: of its list; None if it has none.
        position: how many IDs of its list had been queued.
    """

    run: str
    counts: CancelCounts
    fingerprint: str | None
    position: int


async def stop_run(redis: "Redis", run: str) -> StoppedRun | None:
    """Cancel a run in the ledger; return None if there is no such run."""
    counts = await Cancellation(redis).cancel_run(run)
    if counts is None:
        return None
    ledger = Ledger(redis)
    return StoppedRun(run, counts, await ledger.get_fingerprint(run), await ledger.get_position(run))


async def record_cancellation(bucket: Bucket, stopped: StoppedRun, by: str, environment: str) -> bool:
    """Record in the archive that a run was cancelled.

    Args:
        by: who cancelled it.
        environment: where its list is looked for first.

    Returns:
        Whether that is done; False if the archive lacks the list that the run must have.

    Raises:
        IntegrityError: its list is damaged.
        StorageError: the archive did not do it; cancel the run again when it does.
    """
    if stopped.fingerprint is None:
        return True
    found = await find_run_list(bucket, stopped.run, stopped.fingerprint, environment)
    if found:
        await mark_cancelled(bucket, found, by=by, position=stopped.position)
    return found is not None
