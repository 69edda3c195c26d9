"""Cancel a run for an operator: first in the ledger, then in its list in the archive."""

from dataclasses import dataclass

from redis.asyncio import Redis

from tasks.ledger.cancellation import CancelCounts, Cancellation
from tasks.ledger.ledger import Ledger
from tasks.storage.bucket import Bucket
from tasks.storage.run_list import find_run_list, mark_cancelled, read_run_list


@dataclass(frozen=True, slots=True)
class StoppedRun:
    """A run that was cancelled in the ledger.

    Attributes:
        run: its name.
        counts: how many evaluations were cancelled, or were in flight.
        fingerprint: fingerprint of the list that it was fed from, or None if it had no list.
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
    return StoppedRun(run, counts, await ledger.runs.get_fingerprint(run), await ledger.runs.get_position(run))


async def record_cancellation(bucket: Bucket, stopped: StoppedRun, by: str, environment: str) -> bool:
    """Record in the archive that a run was cancelled.

    Args:
        by: name of the operator.
        environment: the environment to look for its list first.

    Returns:
        True, or False if the archive lacks the list that the run was fed from. A run that is not fed from a
        list may have none.

    Raises:
        IntegrityError: its list is damaged.
        StorageError: the archive cannot be written; cancel the run again later.
    """
    if stopped.fingerprint is None:
        if kept := await read_run_list(bucket, environment, stopped.run):
            await mark_cancelled(bucket, kept, by=by, position=kept.source.ids)
        return True
    found = await find_run_list(bucket, stopped.run, stopped.fingerprint, environment)
    if found:
        await mark_cancelled(bucket, found, by=by, position=stopped.position)
    return found is not None
