"""Remove the objects that an attempt wrote while their evaluation, or their kind of document, was erased."""

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
    """Run an attempt while its lease is watched, and remove the objects that it wrote during an erasure."""
    guard = WriteGuard(partial(ctx.confirm_lease, job), partial(ctx.watch.is_fresh, job), ctx.target.put_seconds)
    try:
        with guard.active(), ctx.watch.attempt(job):
            result = await work()
    except Exception:
        await _remove_erased(job, evaluation, ctx, guard.keys)
        raise
    if result.unchanged is ManifestOutcome.ERASED or result.has_stored_erased:
        await _remove_erased(job, evaluation, ctx, guard.keys)
    return result


async def _remove_erased(job: Job, evaluation: Evaluation, ctx: ArchiveAccess, keys: Collection[str]) -> None:
    """Remove the objects of an attempt that an erasure covers; record them if a worker must not remove objects.

    Args:
        keys: keys of all objects that the attempt began to write.
    """
    written = sorted(set(keys) - {evaluation.manifest_key})
    written = await _select_erased(job, ctx, evaluation, written) if written else []
    if not written:
        return
    is_removed = False
    if isinstance(ctx.manifests, LocalBucket):
        is_removed = await ctx.manifests.remove(written)
    if not is_removed:
        ctx.watch.record_leftovers(written)
    log_events.erased_meanwhile(len(written), removed=is_removed)
    count_objects_after_erasure(len(written))


async def _select_erased(job: Job, ctx: ArchiveAccess, evaluation: Evaluation, keys: list[str]) -> list[str]:
    """Return the keys of erased objects; all keys if the manifest cannot be read now."""
    try:
        found = await read_manifest(ctx.manifests, evaluation)
    except (StorageError, IntegrityError):
        return keys
    if found is None:
        return []
    if found.manifest.erased:
        return [] if job.covers_erasure(found.manifest.erased.at_seconds) else keys
    return [key for key in keys if found.manifest.must_be_gone(key)]
