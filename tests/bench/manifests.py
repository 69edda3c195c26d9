"""Fill an archive with manifests such as a worker writes, without archiving anything."""

from collections.abc import Iterable
from pathlib import Path

from tasks.model.evaluation import Evaluation
from tasks.model.outcome import Outcome
from tasks.storage.manifest import Manifest, archiver, utc_now
from tasks.storage.manifest_records import BundleRecord, DocumentRecord, ResponseRecord, TriggerRecord

_NAMES = ("documentfrontDoc_Front_1_blob.jpg", "documentbackDoc_Back_1_blob.jpg", "Doc_Selfie_1_blob.jpg")
_KINDS = ("document_front", "document_back", "selfie")


def fill_archive(root: Path, eval_ids: Iterable[str]) -> None:
    """Write a manifest of three documents for each evaluation."""
    for eval_id in eval_ids:
        evaluation = Evaluation(eval_id, "sandbox")
        path = root / evaluation.manifest_key
        path.parent.mkdir(parents=True)
        path.write_bytes(_manifest(evaluation).as_json())


def _manifest(evaluation: Evaluation) -> Manifest:
    sha256 = evaluation.eval_id.replace("-", "") * 2
    return Manifest(
        schema=1,
        eval_id=evaluation.eval_id,
        environment="sandbox",
        account=evaluation.account,
        outcome=Outcome.ARCHIVED,
        revision=1,
        previous=None,
        documents=tuple(
            DocumentRecord(
                name=f"user_uploaded/document_verification/{name}",
                kind=kind,
                key=evaluation.document_key(kind, sha256, "jpg"),
                media_type="image/jpeg",
                size=250_000,
                sha256=sha256,
                modified=None,
            )
            for name, kind in zip(_NAMES, _KINDS, strict=True)
        ),
        bundle=BundleRecord(filename=f"{evaluation.eval_id}_document.zip", size=727_501, sha256=sha256),
        response=ResponseRecord(status=200, message=None),
        no_documents=None,
        trigger=TriggerRecord(source="backfill", run="bench", event_type=None, event_id=None),
        retrieved_at=utc_now(),
        archived_at=utc_now(),
        archiver=archiver(),
    )
