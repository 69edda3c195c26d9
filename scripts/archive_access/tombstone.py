"""Write the first manifest of an evaluation that is not archived yet, so that workers know a fact about it."""

import contextlib
from collections.abc import Callable, Mapping

from tasks.errors import ManifestChanged
from tasks.model.evaluation import Evaluation
from tasks.model.job import Job, Queue, Trigger
from tasks.model.outcome import Evidence
from tasks.storage.bucket import Bucket, WriteUnconfirmed
from tasks.storage.manifest import Manifest
from tasks.storage.revision import manifest_attributes


async def write_tombstone(
    bucket: Bucket,
    evaluation: Evaluation,
    source: str,
    tags: Mapping[str, str],
    change: Callable[[Manifest], Manifest | None],
) -> None:
    """Write a manifest without documents, unless there is one; the next order still asks RiskOS for documents.

    The caller has to read the stored manifest afterwards, because a worker may have written one meanwhile.

    Args:
        source: the source of its trigger.
        tags: the user's own tags.
        change: adds the fact.

    Raises:
        StorageError: the manifest may not have been written.
    """
    # Imported lazily: few commands need it, and it loads the metrics of workers.
    from tasks.pipeline.manifest_builder import build_tombstone_without_request  # noqa: PLC0415  # as the comment says

    job = Job(
        evaluation.eval_id,
        token="",
        queue=Queue.LIVE,
        account=evaluation.account,
        refresh=False,
        attempts=0,
        lost=0,
        trigger=Trigger(source),
        evidence=(Evidence.NOT_COMPLETE,),
    )
    tombstone = build_tombstone_without_request(evaluation, job).model_copy(update={"tags": dict(tags)})
    made = change(tombstone) or tombstone
    attributes = manifest_attributes(evaluation, made, tags)
    with contextlib.suppress(ManifestChanged, WriteUnconfirmed):
        await bucket.replace(evaluation.manifest_key, made.as_json(), attributes, None)
