"""Replace the manifest of an erased evaluation with a marker, so that no later order archives it again."""

from collections.abc import Mapping

from pydantic import ValidationError

from scripts.erase.duties import Duty, RetentionDuties
from scripts.erase.matters import check_manifest
from scripts.erase.receipt import StoredReceipt
from tasks.errors import ManifestChanged
from tasks.model.evaluation import Evaluation
from tasks.model.outcome import Outcome
from tasks.storage.bucket import Bucket, StoredObject, WriteUnconfirmed
from tasks.storage.manifest import Manifest, archiver, utc_now
from tasks.storage.manifest_records import ERASURE, ErasedRecord, ResponseRecord, TriggerRecord
from tasks.storage.revision import complete_tags, manifest_attributes

_TRIES = 3


def is_marker(found: StoredObject | None) -> bool:
    """Return whether a stored manifest is the marker of an erasure."""
    manifest = parse_manifest(found)
    return manifest is not None and manifest.erased is not None


async def replace_with_marker(
    bucket: Bucket,
    evaluation: Evaluation,
    receipt: StoredReceipt,
    tags: Mapping[str, str],
    duties: RetentionDuties | None = None,
) -> Duty | None:
    """Put the marker in place of the manifest or of an earlier marker, even if a worker writes meanwhile.

    Returns:
        A duty to keep a document that a worker has added; then the manifest stays. None if the marker is in place.

    Args:
        tags: the user's own tags.
        duties: finds duties to keep the evaluation; None without a retention schedule.

    Raises:
        UnderLegalHold: the evaluation is under a legal hold.
        IntegrityError: the manifest or an event is damaged, so that the rules cannot decide.
        ManifestChanged: workers changed the manifest during every try.
        StorageError: the marker may not have been written.
    """
    for _ in range(_TRIES):
        found = await bucket.read(evaluation.manifest_key)
        before = parse_manifest(found)
        check_manifest(before)
        # An order to archive again overrides earlier erasures only, so the marker has the time of the latest one.
        if before and before.erased and before.erased.at >= receipt.receipt.erased_at:
            await complete_tags(bucket, evaluation, before, tags)
            return None
        # Checked after the read: if the manifest changes after the check, the write fails and this is repeated.
        if duties and (duty := await duties.find(bucket, evaluation)):
            return duty
        marker = make_marker(evaluation, receipt, before)
        labels = manifest_attributes(evaluation, marker, tags)
        try:
            await bucket.replace(evaluation.manifest_key, marker.as_json(), labels, found.etag if found else None)
        except (ManifestChanged, WriteUnconfirmed):
            continue  # the next read shows what is stored
        return None
    raise ManifestChanged


def make_marker(evaluation: Evaluation, kept: StoredReceipt, before: Manifest | None) -> Manifest:
    """Return the marker: it keeps the earlier outcome and the disposals, and lists no documents."""
    now = utc_now()
    return Manifest(
        schema=1,
        eval_id=evaluation.eval_id,
        environment=evaluation.environment,  # type: ignore[arg-type]  # checked by pydantic
        account=before.account if before else evaluation.account,
        # Each outcome of the closed set states what RiskOS answered. If RiskOS was not asked, this claims the least.
        outcome=before.outcome if before else Outcome.NO_DOCUMENTS,
        revision=before.revision + 1 if before else 1,
        previous=None,
        documents=(),
        # A later order covers erasures, those of kinds, too, but must not bring back what the schedule disposed of.
        disposed=tuple(each for each in before.disposed if each.rule != ERASURE) if before else (),
        bundle=None,
        response=ResponseRecord(status=before.response.status if before else 0, message=None),
        no_documents=None,
        trigger=TriggerRecord(source="erase", run=None, event_type=None, event_id=None),
        retrieved_at=before.retrieved_at if before else now,
        archived_at=now,
        archiver=archiver(),
        erased=ErasedRecord(receipt=kept.key, at=kept.receipt.erased_at),
    )


def parse_manifest(found: StoredObject | None) -> Manifest | None:
    """Return a parsed manifest; None if it is damaged, which must not prevent the erasure."""
    try:
        return Manifest.model_validate_json(found.data) if found else None
    except ValidationError:
        return None
