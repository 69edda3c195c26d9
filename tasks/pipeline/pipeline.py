"""The steps that archive one evaluation, from the request to RiskOS to the manifest."""

import contextlib
from collections.abc import Awaitable, Callable, Collection
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Protocol

from tasks.bundle.unpacker import BundleContents, BundleUnpacker
from tasks.errors import ArchiveError, ManifestChanged
from tasks.memory.bundle_memory import BundleMemory
from tasks.model.evaluation import Evaluation
from tasks.model.job import Job, Queue
from tasks.model.outcome import (
    ArchiveResult,
    Evidence,
    NoDocumentsReason,
    Outcome,
    RestrictedHandling,
    Restriction,
    reason_from,
    restriction_from,
)
from tasks.pipeline.manifest_builder import (
    add_documents,
    add_facts,
    build_manifest,
    build_tombstone_without_request,
    keep_keys,
    known_evidence,
)
from tasks.pipeline.retention import RetentionPolicy, select_documents
from tasks.pipeline.upload import UploadTarget, find_key_id, quarantine_bundle, store_documents
from tasks.resilience.archive_gate import ArchiveGate
from tasks.riskos.client import RiskOSClient
from tasks.riskos.download import BundleHandling
from tasks.riskos.response import Bundle, FetchResult, NoBundle
from tasks.storage.bucket import Bucket
from tasks.storage.manifest import Manifest, StoredManifest, read_manifest, utc_now
from tasks.storage.revision import commit, complete_tags, next_revision
from tasks.telemetry import log_events
from tasks.telemetry.tracing import span
from worker.metrics.worker_metrics import Step, count_uploaded, timed

_COMMITS = 3
_BUNDLES = 64 << 20

AcquireSlot = Callable[[Queue], AbstractAsyncContextManager[None]]
ConfirmLease = Callable[[Job], Awaitable[None]]


async def _skip_confirmation(_: Job) -> None:
    """Confirm every lease."""


@dataclass(frozen=True, slots=True)
class LeaseWatch:
    """Callbacks for a lease that is lost during an attempt.

    Attributes:
        is_fresh: returns whether the lease cannot have expired yet.
        attempt: cancels its block when the lease is lost.
        record_leftovers: records the written objects of an evaluation that was erased during the attempt.
    """

    is_fresh: Callable[[Job], bool] = lambda _: True
    attempt: Callable[[Job], AbstractContextManager[None]] = lambda _: contextlib.nullcontext()
    record_leftovers: Callable[[Collection[str]], None] = lambda _: None


@dataclass(frozen=True, slots=True)
class PipelineContext:
    """The services and settings of the pipeline.

    Attributes:
        client: client of RiskOS.
        gate: closes while the archive cannot be written to.
        target: target of documents in the archive.
        manifests: bucket of the manifests.
        unpacker: unpacks bundles.
        bundle_memory: memory for bundles as they arrive.
        restricted_target: target of documents of military IDs and minors; None if they are withheld.
        explained_queues: queues for which RiskOS is asked why documents are missing.
        acquire_slot: acquires a slot for an evaluation of a queue.
        confirm_lease: checks that this worker still has the lease, before each write.
        watch: callbacks for a lease that is lost during an attempt.
        retention: how long documents are kept.
    """

    client: RiskOSClient
    gate: ArchiveGate
    target: UploadTarget
    manifests: Bucket
    unpacker: BundleUnpacker
    bundle_memory: BundleMemory = field(default_factory=lambda: BundleMemory(_BUNDLES))
    restricted_target: UploadTarget | None = None
    explained_queues: frozenset[Queue] = frozenset()
    acquire_slot: AcquireSlot = lambda _: contextlib.nullcontext()
    confirm_lease: ConfirmLease = _skip_confirmation
    watch: LeaseWatch = LeaseWatch()
    retention: RetentionPolicy = field(default_factory=RetentionPolicy)


class ArchiveAccess(Protocol):
    """The common attributes of contexts that write to the archive; see ``PipelineContext``."""

    @property
    def target(self) -> UploadTarget:
        """Return the target of documents."""

    @property
    def manifests(self) -> Bucket:
        """Return the bucket of the manifests."""

    @property
    def restricted_target(self) -> UploadTarget | None:
        """Return the target of documents of military IDs and minors, or None if they are withheld."""

    @property
    def confirm_lease(self) -> ConfirmLease:
        """Return the function that checks that this worker still has the lease."""

    @property
    def watch(self) -> LeaseWatch:
        """Return the callbacks for a lease that is lost."""

    @property
    def retention(self) -> RetentionPolicy:
        """Return how long documents are kept."""


async def archive(job: Job, ctx: PipelineContext) -> ArchiveResult:
    """Archive one evaluation and return the result.

    Raises:
        ArchiveError: the attempt failed; ``tasks.resilience.retry.decide`` decides what follows.
    """
    result, needs_confirmation = await _archive(job, ctx)
    if needs_confirmation:
        # A bundle that cannot be read completely is fetched once more. Everything received is already archived, so
        # the second answer can only add to it, in this attempt or in a later one.
        first = result
        result, _ = await _archive(job, ctx, is_confirmation=True)
        if first.has_stored_erased:
            result = replace(result, has_stored_erased=True)
    return result


async def _archive(job: Job, ctx: PipelineContext, *, is_confirmation: bool = False) -> tuple[ArchiveResult, bool]:
    """Make a request if needed and record its answer; return the result, and whether a second one has to confirm it."""
    account, closings = ctx.client.account, ctx.gate.generation
    evaluation = Evaluation(job.eval_id, account.environment, account.name)
    with span("look_up"):
        before = await read_manifest(ctx.manifests, evaluation)
    if before and _is_final(before.manifest, job, is_confirmation=is_confirmation):
        return await _record_facts(job, ctx, evaluation, before), False
    if job.without_request:
        return await _record_without_request(job, ctx, evaluation, before), False
    # Reading the manifest and committing it need no memory for a bundle, so both happen outside the slot.
    async with ctx.acquire_slot(job.queue):
        ctx.gate.check_not_closed_since(closings)
        manifest = await _fetch_and_store(job, evaluation, ctx, before)
    is_confirmed = is_confirmation or (before is not None and before.manifest.unconfirmed)
    needs_confirmation = manifest.outcome is Outcome.UNREADABLE and not is_confirmed
    with span("manifest"):
        unconfirmed = manifest.model_copy(update={"unconfirmed": needs_confirmation})
        result = await _commit(job, ctx, evaluation, unconfirmed, before)
    return result, needs_confirmation


async def _fetch_and_store(
    job: Job, evaluation: Evaluation, ctx: PipelineContext, previous: StoredManifest | None
) -> Manifest:
    """Fetch the documents from RiskOS and store them; return the manifest to commit."""
    restriction = restriction_from((*job.evidence, *(previous.manifest.evidence if previous else ())))
    target = select_target(ctx, restriction, previous)
    ctx = replace(ctx, target=target or ctx.target)
    async with ctx.bundle_memory.reserve(is_live=job.queue is Queue.LIVE) as reserved:
        answer = await ctx.client.fetch(evaluation, job, BundleHandling(target is None, reserved))
        ctx.bundle_memory.record(answer.size if isinstance(answer, Bundle) else 0)
        explained = await _explain(job, ctx, evaluation, previous, answer) if isinstance(answer, NoBundle) else ()
        async with ctx.unpacker.unpacked(answer.data if isinstance(answer, Bundle) else None) as contents:
            if isinstance(answer, Bundle) and not contents.is_damaged:
                # A bundle that was unpacked completely is no longer needed, so its memory is freed before the upload.
                answer = replace(answer, data=b"")
                reserved.shrink(0)
            return await _store(job, evaluation, ctx, answer, contents, previous, explained=explained)


def select_target(
    ctx: ArchiveAccess, restriction: Restriction | None, previous: StoredManifest | None
) -> UploadTarget | None:
    """Return the target of documents, or None if they are withheld."""
    target = ctx.restricted_target if restriction else ctx.target
    target = target and replace(target, restriction=restriction)
    return replace(target, is_held=previous.manifest.is_held) if target and previous else target


async def _explain(
    job: Job, ctx: PipelineContext, evaluation: Evaluation, previous: StoredManifest | None, answer: NoBundle
) -> tuple[Evidence, ...]:
    """Request the reason for missing documents from RiskOS, unless the archive has held some or the reason is known."""
    before = previous.manifest if previous else None
    is_explained = reason_from(known_evidence(job, before)) is not NoDocumentsReason.RETENTION_OR_UNKNOWN
    if answer.outcome is not Outcome.NO_DOCUMENTS or is_explained or (before and before.has_held_anything):
        return ()
    if job.queue not in ctx.explained_queues:
        return ()
    try:
        return await ctx.client.explain(evaluation, job)
    except ArchiveError:
        return ()
    finally:
        log_events.bind_request_id(answer.request_id)


def _is_final(manifest: Manifest, job: Job, *, is_confirmation: bool) -> bool:
    """Return whether the manifest makes a request to RiskOS unnecessary."""
    if manifest.erased:
        return not job.covers_erasure(manifest.erased.at_seconds)
    if manifest.unconfirmed or is_confirmation or manifest.is_provisional:
        return job.without_request
    return not job.refresh and manifest.manifest_outcome not in job.refresh_outcomes


async def _record_facts(
    job: Job, ctx: PipelineContext, evaluation: Evaluation, before: StoredManifest
) -> ArchiveResult:
    """Commit facts that arrived after the manifest as a new revision, without a request to RiskOS."""
    revised = add_facts(job, before.manifest)
    if revised is None:
        await complete_tags(ctx.manifests, evaluation, before.manifest, ctx.target.tags)
        return _unchanged(before.manifest)
    await ctx.confirm_lease(job)
    with span("manifest"):
        await commit(ctx.manifests, evaluation, revised, before, ctx.target.tags)
    return replace(
        _unchanged(revised),
        has_written=True,
        reason=revised.no_documents_reason,
        restricted=_restricted(revised, before),
    )


async def _record_without_request(
    job: Job, ctx: PipelineContext, evaluation: Evaluation, before: StoredManifest | None
) -> ArchiveResult:
    """Write a tombstone without a request to RiskOS.

    Raises:
        ManifestChanged: another worker wrote a manifest meanwhile, and a tombstone must not hide its documents.
    """
    manifest = build_tombstone_without_request(evaluation, job)
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
    *,
    explained: tuple[Evidence, ...],
) -> Manifest:
    """Store the documents in the archive; return the manifest to commit."""
    # A damaged bundle may hold documents of an erased kind.
    may_keep_bundle = not (previous and previous.manifest.erased_kinds)
    draft = build_manifest(
        evaluation,
        replace(job, evidence=(*job.evidence, *explained)),
        result,
        contents,
        retrieved_at=utc_now(),
        sealed_with=ctx.target.sealed_with if may_keep_bundle else None,
        previous=previous.manifest if previous else None,
    )
    bundles = draft.quarantined if may_keep_bundle else ()
    draft = draft.model_copy(update={"tags": ctx.target.tags, "quarantined": bundles})
    manifest = await store_contents(job, evaluation, ctx, contents, previous, draft)
    # RiskOS packs a new bundle for each request, so the one in quarantine is enough if nothing else has changed.
    same = previous and previous.manifest.same_content(next_revision(previous, manifest))
    if isinstance(result, Bundle) and contents.is_damaged and may_keep_bundle and not same:
        plain = previous.manifest.plain_keys(evaluation) if previous else frozenset()
        key = await quarantine_bundle(ctx.target, evaluation, result, plain=plain)
        manifest = manifest.with_sealed_bundle(await find_key_id(ctx.target, key))
    return manifest


async def store_contents(
    job: Job,
    evaluation: Evaluation,
    ctx: ArchiveAccess,
    contents: BundleContents,
    previous: StoredManifest | None,
    draft: Manifest,
) -> Manifest:
    """Store the documents of a bundle that are kept, with their kinds and keys in the previous manifest.

    Args:
        draft: the manifest to commit, without documents.

    Returns:
        The manifest with its documents.

    Raises:
        LeaseLost: this worker no longer has the lease of the evaluation.
        StorageError: a document could not be stored, or the events of the evaluation cannot be read.
        IntegrityError: a stored object or an event is damaged.
    """
    await ctx.confirm_lease(job)
    before, archived_at = previous.manifest if previous else None, utc_now()
    selection = await select_documents(
        ctx.retention,
        ctx.manifests,
        evaluation,
        keep_keys(contents.documents, evaluation, before),
        next_revision(previous, draft),
        now=archived_at,
    )
    with timed(Step.UPLOAD), span("store", documents=len(selection.documents)):
        stored = await store_documents(
            ctx.target,
            evaluation,
            selection.documents,
            archived_at=archived_at,
            plain=before.plain_keys(evaluation) if before else (),
            locks=selection.locks,
        )
    count_uploaded(sum(len(document.data) for document in selection.documents))
    return add_documents(draft, stored, selection.disposed, archived_at=archived_at)


async def _commit(
    job: Job, ctx: PipelineContext, evaluation: Evaluation, manifest: Manifest, previous: StoredManifest | None
) -> ArchiveResult:
    """Commit the manifest on top of the current one; commit nothing if the evaluation was erased meanwhile."""
    for _ in range(_COMMITS):
        try:
            outcome = await commit(ctx.manifests, evaluation, manifest, previous, ctx.target.tags)
        except ManifestChanged:
            previous = await read_manifest(ctx.manifests, evaluation)
            erased = previous and previous.manifest.erased
            if previous and erased and not job.covers_erasure(erased.at_seconds):
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
        restricted=_restricted(record, previous) if has_written else None,
        has_stored_erased=_has_stored_erased(manifest, record),
    )


def _has_stored_erased(manifest: Manifest, record: Manifest) -> bool:
    """Return whether an attempt stored documents, or a bundle, of kinds that were erased since it read the manifest."""
    is_in_quarantine = bool(record.erased_kinds and manifest.quarantined)
    return is_in_quarantine or any(record.must_be_gone(each.key) for each in manifest.documents)


def _restricted(record: Manifest, previous: StoredManifest | None) -> tuple[Restriction, RestrictedHandling] | None:
    """Return the restriction and how its images were handled, or None if the previous manifest already records it."""
    before = previous.manifest if previous else None
    if record.restricted is None or (before and before.restricted):
        return None
    if not record.holds_anything:
        handling = RestrictedHandling.WITHHELD
    else:
        handling = RestrictedHandling.LATE if before and before.holds_anything else RestrictedHandling.ARCHIVED
    return record.restricted.reason, handling


def _unchanged(manifest: Manifest) -> ArchiveResult:
    return ArchiveResult(Outcome.UNCHANGED, manifest.manifest_outcome)
