"""Remove the objects of an attempt whose evaluation was erased while the attempt ran."""

from collections.abc import Awaitable, Callable, Collection
from functools import partial

from tasks.errors import IntegrityError, StorageError
from tasks.model.evaluation import Evaluation
from tasks.model.job import Job
from tasks.model.outcome import ArchiveResult, ManifestOutcome
from tasks.pipeline.pipeline import ArchiveAccess
from tasks.storage.local_bucket import LocalBucket
from tasks.storage.manifest import read_manifest
from tasks.storage.write_guard import WriteGuard
from tasks.telemetry import log_events
from worker.metrics.worker_metrics import count_objects_after_erasure


async def archive_guarded(
    job: Job, evaluation: Evaluation, ctx: ArchiveAccess, work: Callable[[], Awaitable[ArchiveResult]]
) -> ArchiveResult:
    """Run an attempt while its lease is watched; clear up its objects if the evaluation was erased meanwhile."""
    guard = WriteGuard(partial(ctx.confirm_lease, job), partial(ctx.watch.is_fresh, job), ctx.target.put_seconds)
    try:
        with guard.active(), ctx.watch.attempt(job):
            result = await work()
    except Exception:
        await _clear_up(job, evaluation, ctx, guard.keys)
        raise
    if result.unchanged is ManifestOutcome.ERASED:
        await _clear_up(job, evaluation, ctx, guard.keys)
    return result


async def _clear_up(job: Job, evaluation: Evaluation, ctx: ArchiveAccess, keys: Collection[str]) -> None:
    """Remove the objects of an attempt if its evaluation was erased; record them if a worker must not remove objects.

    Args:
        keys: keys of all objects that the attempt began to write.
    """
    written = sorted(set(keys) - {evaluation.manifest_key})
    if not written or not await _may_be_erased(job, ctx, evaluation):
        return
    is_removed = False
    if isinstance(ctx.manifests, LocalBucket):
        is_removed = await ctx.manifests.remove(written)
    if not is_removed:
        ctx.watch.record_leftovers(written)
    log_events.erased_meanwhile(len(written), removed=is_removed)
    count_objects_after_erasure(len(written))


async def _may_be_erased(job: Job, ctx: ArchiveAccess, evaluation: Evaluation) -> bool:
    """Return whether the evaluation was erased, or may have been because its manifest cannot be read now."""
    try:
        found = await read_manifest(ctx.manifests, evaluation)
    except (StorageError, IntegrityError):
        return True
    erased = found.manifest.erased if found else None
    return erased is not None and not job.covers_erasure(erased.at_seconds)
