"""Read a bundle in quarantine again with the current reader, without a request to RiskOS.

A better reader finds documents in bundles that an older one refused, even after RiskOS has deleted them.
"""

import contextlib
from dataclasses import dataclass, field, replace
from pathlib import Path

from tasks.bundle.unpacker import BundleContents, BundleUnpacker
from tasks.errors import IntegrityError, ManifestChanged
from tasks.memory.buffer_pool import Buffer
from tasks.memory.spool import DownloadBuffer
from tasks.model.evaluation import Evaluation
from tasks.model.job import Job
from tasks.model.outcome import ArchiveResult, ManifestOutcome, Outcome, restriction_from
from tasks.pipeline.manifest_builder import build_reread_manifest, mark_lenient
from tasks.pipeline.pipeline import ConfirmLease, LeaseWatch, select_target, store_contents
from tasks.pipeline.retention import RetentionPolicy
from tasks.pipeline.upload import UploadTarget
from tasks.storage.bucket import Bucket
from tasks.storage.manifest import StoredManifest, read_manifest
from tasks.storage.manifest_records import BundleRecord
from tasks.storage.revision import commit, next_revision

_ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class RereadContext:
    """The services and settings for reading bundles again; ``PipelineContext`` describes the other attributes.

    Attributes:
        quarantine: the archive's bucket; it opens sealed objects.
        in_memory: bytes of the largest bundle in memory; larger ones are spooled.
        spool_dir: folder for spooled bundles; None for the system's folder for temporary files.
        lenient: whether to take the complete members from a bundle that is refused.
        retention: how long documents are kept.
    """

    quarantine: Bucket
    target: UploadTarget
    manifests: Bucket
    unpacker: BundleUnpacker
    restricted_target: UploadTarget | None
    confirm_lease: ConfirmLease
    watch: LeaseWatch
    in_memory: int
    spool_dir: Path | None = None
    lenient: bool = False
    retention: RetentionPolicy = field(default_factory=RetentionPolicy)


async def reread(job: Job, evaluation: Evaluation, ctx: RereadContext) -> ArchiveResult:
    """Archive the documents of an evaluation's last bundle if it is in quarantine; return the result.

    Nothing changes if the bundle adds nothing, if its images must not be kept, or if the evaluation was erased.

    Raises:
        IntegrityError: there is no manifest, or the bundle is not in quarantine although the manifest names it.
        ArchiveError: the attempt failed.
    """
    for _ in range(_ATTEMPTS):
        before = await read_manifest(ctx.manifests, evaluation)
        if before is None:
            raise IntegrityError("no manifest names a bundle of this evaluation")
        # If another worker writes a manifest meanwhile, it may name another bundle.
        with contextlib.suppress(ManifestChanged):
            return await _reread(job, evaluation, ctx, before)
    raise ManifestChanged


async def _reread(job: Job, evaluation: Evaluation, ctx: RereadContext, before: StoredManifest) -> ArchiveResult:
    unchanged = ArchiveResult(Outcome.UNCHANGED, before.manifest.manifest_outcome)
    bundle = before.manifest.rereadable_bundle
    target = select_target(ctx, restriction_from(before.manifest.evidence), before)
    if before.manifest.erased or bundle is None or target is None:
        return unchanged
    data = await _load(evaluation, ctx, bundle)
    async with ctx.unpacker.unpacked(data, lenient=ctx.lenient) as contents:
        if _adds_nothing(contents, before):
            return unchanged
        draft = build_reread_manifest(before.manifest, contents)
        manifest = await store_contents(job, evaluation, replace(ctx, target=target), contents, before, draft)
    manifest = mark_lenient(manifest, before.manifest, contents.lenient)
    record = next_revision(before, manifest)
    if record.comparison_key() == before.manifest.comparison_key():
        return unchanged
    outcome = await commit(ctx.manifests, evaluation, manifest, before, ctx.target.tags)
    if outcome in {Outcome.UNCHANGED, Outcome.WITHHELD}:
        return ArchiveResult(Outcome.UNCHANGED, record.manifest_outcome, has_written=True)
    return ArchiveResult(outcome, has_written=True)


def _adds_nothing(contents: BundleContents, before: StoredManifest) -> bool:
    """Return whether a bundle still cannot be read, or was read more completely before."""
    was_whole = before.manifest.manifest_outcome is ManifestOutcome.ARCHIVED
    return contents.is_damaged and (was_whole or not contents.documents)


async def _load(evaluation: Evaluation, ctx: RereadContext, bundle: BundleRecord) -> Buffer:
    """Return the bytes of a bundle, in memory or mapped, after a check of their hash."""
    chunks = await ctx.quarantine.stream(evaluation.quarantine_key(bundle.sha256))
    if chunks is None:
        raise IntegrityError("a bundle that a manifest names is not in quarantine")
    async with contextlib.aclosing(chunks):
        with contextlib.closing(DownloadBuffer(ctx.in_memory, ctx.spool_dir)) as buffer:
            async for chunk in chunks:
                await buffer.add(chunk)
            data, sha256 = await buffer.whole()
    if sha256 != bundle.sha256:
        raise IntegrityError("the bytes of a bundle in quarantine do not match its key")
    return data
