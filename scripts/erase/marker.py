"""The manifest of an evaluation that was erased: it keeps whoever comes later from archiving it again."""

from collections.abc import Mapping

from pydantic import ValidationError

from scripts.erase.receipt import StoredReceipt
from tasks.errors import ManifestChanged
from tasks.model.evaluation import Evaluation
from tasks.model.outcome import Outcome
from tasks.storage.bucket import Bucket, StoredObject, WriteUnconfirmed
from tasks.storage.manifest import ErasedRecord, Manifest, ResponseRecord, TriggerRecord, archiver, utc_now
from tasks.storage.revision import manifest_attributes

_TRIES = 3


def is_marker(found: StoredObject | None) -> bool:
    """Return whether a manifest says that its evaluation was erased."""
    manifest = _manifest(found)
    return manifest is not None and manifest.erased is not None


async def replace_with_marker(
    bucket: Bucket, evaluation: Evaluation, receipt: StoredReceipt, tags: Mapping[str, str]
) -> None:
    """Put the marker in the manifest's place, whatever a worker does meanwhile.

    Args:
        tags: the user's own tags.

    Raises:
        ManifestChanged: workers were faster again and again.
        StorageError: it may not be there.
    """
    for _ in range(_TRIES):
        found = await bucket.read(evaluation.manifest_key)
        if is_marker(found):
            return
        marker = make_marker(evaluation, receipt, _manifest(found))
        labels = manifest_attributes(evaluation, marker, tags)
        try:
            await bucket.replace(evaluation.manifest_key, marker.as_json(), labels, found.etag if found else None)
        except (ManifestChanged, WriteUnconfirmed):
            continue  # the next look tells
        return
    raise ManifestChanged


def make_marker(evaluation: Evaluation, kept: StoredReceipt, before: Manifest | None) -> Manifest:
    """Return the marker: the outcome of before, and nothing of what was archived."""
    now = utc_now()
    return Manifest(
        schema=1,
        eval_id=evaluation.eval_id,
        environment=evaluation.environment,  # type: ignore[arg-type]  # checked by pydantic
        account=before.account if before else evaluation.account,
        # The set of outcomes is closed, and each tells what RiskOS said; where it was not asked, this one claims least.
        outcome=before.outcome if before else Outcome.NO_DOCUMENTS,
        revision=before.revision + 1 if before else 1,
        previous=None,
        documents=(),
        bundle=None,
        response=ResponseRecord(status=before.response.status if before else 0, message=None),
        no_documents=None,
        trigger=TriggerRecord(source="erase", run=None, event_type=None, event_id=None),
        retrieved_at=before.retrieved_at if before else now,
        archived_at=now,
        archiver=archiver(),
        erased=ErasedRecord(receipt=kept.key, at=kept.receipt.requested_at),
    )


def _manifest(found: StoredObject | None) -> Manifest | None:
    """Return what a manifest says; one that cannot be read must not keep its evaluation from being erased."""
    try:
        return Manifest.model_validate_json(found.data) if found else None
    except ValidationError:
        return None
