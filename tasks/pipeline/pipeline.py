"""One evaluation's journey into the archive, one line per step."""

import contextlib
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace

from tasks.bundle.unpacker import BundleContents, BundleUnpacker
from tasks.errors import ManifestChanged
from tasks.memory.buffer_pool import Buffer
from tasks.model.evaluation import Evaluation
from tasks.model.job import Job, Queue
from tasks.model.outcome import ArchiveResult, Outcome
from tasks.pipeline.manifest_builder import add_evidence, build_manifest, build_unasked_tombstone, keep_kinds
from tasks.pipeline.upload import UploadTarget, quarantine_bundle, store_documents
from tasks.resilience.archive_gate import ArchiveGate
from tasks.riskos.client import RiskOSClient, fetch
from tasks.riskos.response import Bundle, FetchResult, NoBundle
from tasks.storage.bucket import Bucket
from tasks.storage.manifest import Manifest, StoredManifest, read_manifest, utc_now
from tasks.storage.revision import commit, next_revision
from tasks.telemetry.tracing import span
from worker.metrics.worker_metrics import Step, count_uploaded, timed

_COMMITS = 3

AcquireSlot = Callable[[Queue], AbstractAsyncContextManager[None]]
ConfirmLease = Callable[[Job], Awaitable[None]]


async def _always_ours(_: Job) -> None:
    """It is always ours."""


@dataclass(frozen=True, slots=True)
class PipelineContext:
    """What the journey needs.

    Attributes:
        client: to RiskOS.
        gate: before the archive.
        target: in the archive, for documents.
        manifests: where the manifests are.
        unpacker: what opens bundles.
        acquire_slot: what gives an evaluation of a queue its slot.
        confirm_lease: sees that an evaluation is still ours, before anything of it is written.
    """

    client: RiskOSClient
    gate: ArchiveGate
    target: UploadTarget
    manifests: Bucket
    unpacker: BundleUnpacker
    acquire_slot: AcquireSlot = lambda _: contextlib.nullcontext()
    confirm_lease: ConfirmLease = _always_ours


async def archive(job: Job, ctx: PipelineContext) -> ArchiveResult:
    """Carry one evaluation into the archive and return how it ended.

    Raises:
        ArchiveError: the attempt was stopped; ``tasks.resilience.retry.decide`` knows what then.
    """
    account, closings = ctx.client.account, ctx.gate.generation
    evaluation = Evaluation(job.eval_id, account.environment, account.name)
    with span("look_up"):
        before = await read_manifest(ctx.manifests, evaluation)
    if before and _is_final(before.manifest, job):
        return await _record_evidence(job, ctx, evaluation, before)
    if job.without_request:
        return await _record_unasked(job, ctx, evaluation, before)
    # Looking and committing hold no bundle: both happen while others have the slot.
    async with ctx.acquire_slot(job.queue):
        ctx.gate.check_not_closed_since(closings)
        manifest = await _fetch_and_store(job, evaluation, ctx, before)
    with span("manifest"):
        return await _commit(job, ctx, evaluation, manifest, before)


async def _fetch_and_store(
    job: Job, evaluation: Evaluation, ctx: PipelineContext, previous: StoredManifest | None
) -> Manifest:
    """Carry what RiskOS has into the archive; return the manifest that is to be committed then."""
    answer = await fetch(ctx.client, evaluation, job)
    async with ctx.unpacker.unpacked(_data(answer)) as contents:
        if not contents.is_damaged:
            # The bytes of the bundle are not needed any more once all of it has been unpacked.
            answer = replace(answer, data=b"") if isinstance(answer, Bundle) else answer
            return await _store(job, evaluation, ctx, answer, contents, previous)
        readable = len(contents.documents)
    # A bundle that cannot be read whole is fetched again, once, before it is believed.
    again = await fetch(ctx.client, evaluation, job)
    async with ctx.unpacker.unpacked(_data(again)) as contents:
        if isinstance(again, NoBundle) or len(contents.documents) >= readable:
            return await _store(job, evaluation, ctx, again, contents, previous)
    async with ctx.unpacker.unpacked(_data(answer)) as contents:
        return await _store(job, evaluation, ctx, answer, contents, previous)


def _data(result: FetchResult) -> Buffer | None:
    return result.data if isinstance(result, Bundle) else None


def _is_final(manifest: Manifest, job: Job) -> bool:
    """Return whether what the archive says of the evaluation is not to be asked for again."""
    if manifest.erased:
        return not job.even_if_erased
    if manifest.is_without_docv:
        return job.without_request
    return not job.refresh and manifest.manifest_outcome not in job.refresh_outcomes


async def _record_evidence(
    job: Job, ctx: PipelineContext, evaluation: Evaluation, before: StoredManifest
) -> ArchiveResult:
    """Write evidence that came after a tombstone into a revision of it; RiskOS is not asked."""
    revised = add_evidence(job, before.manifest)
    if revised is None:
        return _unchanged(before.manifest)
    await ctx.confirm_lease(job)
    with span("manifest"):
        await commit(ctx.manifests, evaluation, revised, before, ctx.target.tags)
    return replace(_unchanged(revised), has_written=True, reason=revised.no_documents_reason)


async def _record_unasked(
    job: Job, ctx: PipelineContext, evaluation: Evaluation, before: StoredManifest | None
) -> ArchiveResult:
    """Write a tombstone without asking RiskOS.

    Raises:
        ManifestChanged: another worker wrote a manifest meanwhile, whose documents must not be hidden.
    """
    manifest = build_unasked_tombstone(evaluation, job)
    await ctx.confirm_lease(job)
    with span("manifest"):
        outcome = await commit(ctx.manifests, evaluation, manifest, before, ctx.target.tags)
    return _result(outcome, manifest, before)


async def _store(
    job: Job,
    evaluation: Evaluation,
    ctx: PipelineContext,
    result: FetchResult,
    contents: BundleContents,
    previous: StoredManifest | None,
) -> Manifest:
    """Put the documents into the archive; return what the manifest is to say of them."""
    retrieved_at = utc_now()
    await ctx.confirm_lease(job)
    with timed(Step.UPLOAD), span("store", documents=len(contents.documents)):
        documents = keep_kinds(contents.documents, previous.manifest if previous else None)
        stored = await store_documents(ctx.target, evaluation, documents, archived_at=retrieved_at)
    count_uploaded(sum(len(document.data) for document in contents.documents))
    manifest = build_manifest(
        evaluation,
        job,
        result,
        contents,
        stored,
        retrieved_at=retrieved_at,
        sealed_with=ctx.target.sealed_with,
        previous=previous.manifest if previous else None,
    )
    # RiskOS packs a bundle anew for each request: where all is as it was, the one in quarantine will do.
    same = previous and previous.manifest.same_content(next_revision(previous, manifest))
    if isinstance(result, Bundle) and contents.is_damaged and not same:
        await quarantine_bundle(ctx.target, evaluation, result)
    return manifest


async def _commit(
    job: Job, ctx: PipelineContext, evaluation: Evaluation, manifest: Manifest, previous: StoredManifest | None
) -> ArchiveResult:
    """Commit the manifest; where another worker was faster, on top of what that one wrote; where it was erased, not."""
    for _ in range(_COMMITS):
        try:
            outcome = await commit(ctx.manifests, evaluation, manifest, previous, ctx.target.tags)
        except ManifestChanged:
            previous = await read_manifest(ctx.manifests, evaluation)
            if previous and previous.manifest.erased and not job.even_if_erased:
                return _unchanged(previous.manifest)
        else:
            return _result(outcome, manifest, previous)
    raise ManifestChanged


def _result(outcome: Outcome, manifest: Manifest, previous: StoredManifest | None) -> ArchiveResult:
    record = next_revision(previous, manifest)
    has_written = previous is None or not previous.manifest.same_content(record)
    return ArchiveResult(
        outcome,
        unchanged=record.manifest_outcome if outcome is Outcome.UNCHANGED else None,
        answer=manifest.outcome if manifest.response.status else None,
        has_written=has_written,
        reason=record.no_documents_reason if has_written else None,
    )


def _unchanged(manifest: Manifest) -> ArchiveResult:
    return ArchiveResult(Outcome.UNCHANGED, manifest.manifest_outcome)
