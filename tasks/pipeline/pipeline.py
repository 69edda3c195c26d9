"""One evaluation's journey into the archive, one line per step."""

import contextlib
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from tasks.bundle.unpacker import BundleContents, BundleUnpacker
from tasks.errors import ManifestChanged
from tasks.memory.buffer_pool import Buffer
from tasks.model.evaluation import Evaluation
from tasks.model.job import Job, Queue
from tasks.model.outcome import Outcome
from tasks.pipeline.manifest_builder import build_manifest
from tasks.pipeline.upload import UploadTarget, quarantine, store_documents
from tasks.resilience.archive_gate import ArchiveGate
from tasks.riskos.client import RiskOSClient, request
from tasks.riskos.response import Bundle, FetchResult, NoBundle
from tasks.storage.bucket import Bucket
from tasks.storage.manifest import Manifest, StoredManifest, commit, read_manifest, utc_now
from tasks.telemetry.metrics import NULL_METRICS, Metrics, Step, timed
from tasks.telemetry.tracing import span

_COMMITS = 3


Place = Callable[[Queue], AbstractAsyncContextManager[None]]
Confirm = Callable[[Job], Awaitable[None]]


def _anywhere(_: Queue) -> AbstractAsyncContextManager[None]:
    """There is always a place."""
    return contextlib.nullcontext()


async def _ours(_: Job) -> None:
    """It is always ours."""


@dataclass(frozen=True, slots=True)
class PipelineContext:
    """What the journey needs.

    Attributes:
        line: to RiskOS.
        gate: before the archive.
        shelf: in the archive, for documents.
        records: where the manifests are.
        opening: what opens bundles.
        figures: who counts what is done.
        place: what gives an evaluation of a queue its place in flight.
        confirm: sees that an evaluation is still ours, before anything of it is written.
    """

    line: RiskOSClient
    gate: ArchiveGate
    shelf: UploadTarget
    records: Bucket
    opening: BundleUnpacker
    figures: Metrics = NULL_METRICS
    place: Place = _anywhere
    confirm: Confirm = _ours


async def archive(entry: Job, means: PipelineContext) -> Outcome:
    """Carry one evaluation into the archive and return how it ended.

    Raises:
        ArchiveError: the attempt was stopped; ``tasks.resilience.retry.decide`` knows what then.
    """
    account, closings = means.line.account, means.gate.closings
    evaluation = Evaluation(entry.eval_id, account.environment, account.name)
    with span("look_up"):
        before = await read_manifest(means.records, evaluation)
    if before and _stays(before.manifest, entry):
        return Outcome.UNCHANGED
    # Looking and committing hold no bundle: both happen while others have the place.
    async with means.place(entry.queue):
        means.gate.check_open_since(closings)
        manifest = await _carry(entry, evaluation, means, before)
    with span("manifest"):
        return await _commit(entry, means, evaluation, manifest, before)


async def _carry(entry: Job, evaluation: Evaluation, means: PipelineContext, before: StoredManifest | None) -> Manifest:
    """Carry what RiskOS has into the archive; return the manifest that is to be committed then."""
    answer = await request(means.line, evaluation, entry.queue)
    async with means.opening.contents(_data(answer)) as contents:
        if not contents.unreadable:
            answer = answer.emptied() if isinstance(answer, Bundle) else answer
            return await _keep(entry, evaluation, means, answer, contents, before)
        readable = len(contents.documents)
    # A bundle that cannot be read whole is fetched again, once, before it is believed.
    again = await request(means.line, evaluation, entry.queue)
    async with means.opening.contents(_data(again)) as contents:
        if isinstance(again, NoBundle) or len(contents.documents) >= readable:
            return await _keep(entry, evaluation, means, again, contents, before)
    async with means.opening.contents(_data(answer)) as contents:
        return await _keep(entry, evaluation, means, answer, contents, before)


def _data(answer: FetchResult) -> Buffer | None:
    return answer.data if isinstance(answer, Bundle) else None


def _stays(manifest: Manifest, entry: Job) -> bool:
    """Return whether what the archive says of the evaluation is not to be asked for again."""
    return not entry.even_if_erased if manifest.erased else not entry.refresh


async def _keep(
    entry: Job,
    evaluation: Evaluation,
    means: PipelineContext,
    answer: FetchResult,
    contents: BundleContents,
    before: StoredManifest | None,
) -> Manifest:
    """Put the documents into the archive; return what the manifest is to say of them."""
    retrieved_at = utc_now()
    await means.confirm(entry)
    with timed(means.figures, Step.UPLOAD), span("store", documents=len(contents.documents)):
        stored = await store_documents(means.shelf, evaluation, contents.documents, archived_at=retrieved_at)
    means.figures.uploaded(sum(len(document.data) for document in contents.documents))
    manifest = build_manifest(
        evaluation,
        entry,
        answer,
        contents,
        stored,
        retrieved_at=retrieved_at,
        sealed_with=means.shelf.sealed_with,
    )
    # RiskOS packs a bundle anew for each request: where all is as it was, the one in quarantine will do.
    same = before and before.manifest.says_the_same_as(manifest)
    if isinstance(answer, Bundle) and contents.unreadable and not same:
        await quarantine(means.shelf, evaluation, answer)
    return manifest


async def _commit(
    entry: Job, means: PipelineContext, evaluation: Evaluation, manifest: Manifest, before: StoredManifest | None
) -> Outcome:
    """Commit the manifest; where another worker was faster, on top of what that one wrote; where it was erased, not."""
    for _ in range(_COMMITS):
        try:
            return await commit(means.records, evaluation, manifest, before)
        except ManifestChanged:
            before = await read_manifest(means.records, evaluation)
            if before and before.manifest.erased and not entry.even_if_erased:
                return Outcome.UNCHANGED
    raise ManifestChanged
