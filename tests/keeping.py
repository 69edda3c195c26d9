"""Put bundles into an archive as a worker does, without RiskOS and Redis."""

import hashlib

from tasks.bundle.documents import identify
from tasks.bundle.unpack import Limits, unpack
from tasks.bundle.unpacker import Contents
from tasks.model.evaluation import Evaluation
from tasks.model.job import Entry, Queue, Trigger
from tasks.model.outcome import Evidence, Outcome
from tasks.pipeline.manifest_builder import record
from tasks.pipeline.upload import Shelf, quarantine, store_documents
from tasks.riskos.response import Absent, Answer, Bundle
from tasks.storage.bucket import Bucket
from tasks.storage.manifest import UnreadableRecord, commit, look_up, utc_now

EVALUATION = Evaluation("0b54a4d4-6e5b-4f3c-9d2a-7c1f0e8b9a10", "sandbox")


async def keep(bucket: Bucket, data: bytes, evaluation: Evaluation = EVALUATION) -> Outcome:
    """Archive a bundle; another one of the same evaluation makes another revision."""
    unpacked = unpack(data, Limits())
    contents = Contents(
        tuple(identify(member) for member in unpacked.members),
        tuple(UnreadableRecord(name=each.name, cause=each.cause) for each in unpacked.unreadable),
    )
    return await _keep(bucket, evaluation, Bundle("b.zip", data, hashlib.sha256(data).hexdigest(), len(data)), contents)


async def keep_tombstone(
    bucket: Bucket, evaluation: Evaluation = EVALUATION, evidence: tuple[Evidence, ...] = ()
) -> Outcome:
    """Archive that there are no documents."""
    answer = Absent(Outcome.NO_DOCUMENTS, 400, "No Documents Found")
    return await _keep(bucket, evaluation, answer, Contents(), evidence)


async def _keep(
    bucket: Bucket, evaluation: Evaluation, answer: Answer, contents: Contents, evidence: tuple[Evidence, ...] = ()
) -> Outcome:
    at, shelf = utc_now(), Shelf(bucket)
    trigger = Trigger("run", run="q3")
    entry = Entry(evaluation.eval_id, "token", Queue.LIVE, "default", False, 0, 0, trigger, evidence=evidence)  # noqa: FBT003
    stored = await store_documents(shelf, evaluation, contents.documents, archived_at=at)
    if isinstance(answer, Bundle) and contents.unreadable:
        await quarantine(shelf, evaluation, answer)
    manifest = record(evaluation, entry, answer, contents, stored, retrieved_at=at)
    return await commit(bucket, evaluation, manifest, await look_up(bucket, evaluation))
