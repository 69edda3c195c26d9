"""Put bundles into an archive as a worker does, without RiskOS and Redis."""

import hashlib

from tasks.bundle.unpacker import BundleContents, BundleUnpacker
from tasks.bundle.zip import Limits
from tasks.model.evaluation import Evaluation
from tasks.model.job import Job, Queue, Trigger
from tasks.model.outcome import Evidence, Outcome
from tasks.pipeline.manifest_builder import add_documents, build_manifest
from tasks.pipeline.upload import UploadTarget, quarantine_bundle, store_documents
from tasks.riskos.response import Bundle, FetchResult, NoBundle, WithheldBundle
from tasks.storage.bucket import Bucket
from tasks.storage.manifest import read_manifest, utc_now
from tasks.storage.manifest_records import UnreadableRecord
from tasks.storage.revision import commit

EVALUATION = Evaluation("0b54a4d4-6e5b-4f3c-9d2a-7c1f0e8b9a10", "sandbox")


async def archive_bundle(
    bucket: Bucket, data: bytes, evaluation: Evaluation = EVALUATION, evidence: tuple[Evidence, ...] = ()
) -> Outcome:
    """Archive a bundle; a second bundle of the same evaluation makes a new revision."""
    bundle = Bundle("b.zip", data, hashlib.sha256(data).hexdigest(), len(data))
    async with BundleUnpacker(Limits()).unpacked(data) as contents:
        return await _archive(bucket, evaluation, bundle, contents, evidence)


async def archive_as_unreadable(
    bucket: Bucket, data: bytes, evaluation: Evaluation = EVALUATION, target: UploadTarget | None = None
) -> Outcome:
    """Archive a bundle as unreadable, even if the current reader could read it."""
    bundle = Bundle("b.zip", data, hashlib.sha256(data).hexdigest(), len(data))
    contents = BundleContents(unreadable=(UnreadableRecord(name="", cause="local_header_differs"),))
    return await _archive(bucket, evaluation, bundle, contents, target=target)


async def archive_withheld(bucket: Bucket, evaluation: Evaluation, evidence: tuple[Evidence, ...]) -> Outcome:
    """Record that a bundle with three files was withheld."""
    return await _archive(bucket, evaluation, WithheldBundle(1_000, 3), BundleContents(), evidence)


async def archive_tombstone(
    bucket: Bucket, evaluation: Evaluation = EVALUATION, evidence: tuple[Evidence, ...] = ()
) -> Outcome:
    """Record that there are no documents."""
    answer = NoBundle(Outcome.NO_DOCUMENTS, 400, "No Documents Found")
    return await _archive(bucket, evaluation, answer, BundleContents(), evidence)


async def record_refusal(bucket: Bucket, outcome: Outcome, status: int, evaluation: Evaluation = EVALUATION) -> Outcome:
    """Record that RiskOS refused the request, or did not know the evaluation."""
    return await _archive(bucket, evaluation, NoBundle(outcome, status, "no"), BundleContents())


async def _archive(
    bucket: Bucket,
    evaluation: Evaluation,
    answer: FetchResult,
    contents: BundleContents,
    evidence: tuple[Evidence, ...] = (),
    target: UploadTarget | None = None,
) -> Outcome:
    at, upload_target = utc_now(), target or UploadTarget(bucket)
    trigger = Trigger("run", run="q3")
    entry = Job(evaluation.eval_id, "token", Queue.LIVE, "default", False, 0, 0, trigger, evidence=evidence)  # noqa: FBT003
    stored = await store_documents(upload_target, evaluation, contents.documents, archived_at=at)
    if isinstance(answer, Bundle) and contents.is_damaged:
        await quarantine_bundle(upload_target, evaluation, answer)
    draft = build_manifest(evaluation, entry, answer, contents, retrieved_at=at, sealed_with=upload_target.sealed_with)
    manifest = add_documents(draft, stored, archived_at=at)
    return await commit(bucket, evaluation, manifest, await read_manifest(bucket, evaluation))
