"""Schedules, and disposals as a command makes them: the manifest first, then the objects."""

from collections.abc import Callable, Collection
from datetime import date

import obstore
from obstore.store import ObjectStore

from tasks.model.evaluation import Evaluation
from tasks.retention.schedule import Schedule
from tasks.storage.bucket import Bucket, S3Bucket
from tasks.storage.local_bucket import LocalBucket
from tasks.storage.manifest import Manifest
from tasks.storage.manifest_records import DisposedRecord, DocumentRecord
from tasks.storage.revision import amend

CERTIFICATE = "receipts/disposals/sandbox/20250201T040000Z-0a1b2c3d.json"
DISPOSED_AT = "2025-02-01T04:00:00.000Z"


def make_schedule(*rules: dict[str, object]) -> Schedule:
    """Return a schedule with these rules, which are named by their number."""
    return Schedule.model_validate({"rule": [{"name": f"rule-{number}", **rule} for number, rule in enumerate(rules)]})


def disposed_of(document: DocumentRecord) -> DisposedRecord:
    """Return the record of a document that a rule disposed of."""
    return DisposedRecord(
        kind=document.kind,
        key=document.key,
        sha256=document.sha256,
        size=document.size,
        rule="five-years",
        clock="archived",
        started=date(2020, 1, 31),
        due=date(2025, 2, 1),
        archived_at=document.archived_at,
        disposed_at=DISPOSED_AT,
        receipt=CERTIFICATE,
    )


async def list_as_disposed(
    bucket: Bucket, evaluation: Evaluation, is_due: Callable[[DocumentRecord], bool] = lambda _: True
) -> list[str]:
    """List documents as disposed of, and return the keys of their objects, which still exist."""
    gone: dict[str, DisposedRecord] = {}

    def change(manifest: Manifest) -> Manifest:
        gone.clear()
        gone.update((each.key, disposed_of(each)) for each in manifest.documents if is_due(each))
        kept = tuple(each for each in manifest.documents if each.key not in gone)
        return manifest.model_copy(update={"documents": kept, "disposed": (*manifest.disposed, *gone.values())})

    await amend(bucket, evaluation, change)
    return list(gone)


async def dispose(
    bucket: LocalBucket, evaluation: Evaluation, is_due: Callable[[DocumentRecord], bool] = lambda _: True
) -> None:
    """Dispose of documents of an archive in a folder."""
    assert await bucket.remove(await list_as_disposed(bucket, evaluation, is_due))


async def dispose_in_store(store: ObjectStore, evaluation: Evaluation, names: Collection[str]) -> None:
    """Dispose of the held documents with these names."""
    gone = await list_as_disposed(S3Bucket(store), evaluation, lambda document: document.name in names)
    await obstore.delete_async(store, gone)
