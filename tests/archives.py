"""Archives as workers write them, and ways to tamper with them that change only bytes."""

import hashlib
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from uuid import UUID

from tasks.bundle.documents import identify
from tasks.bundle.zip import Member
from tasks.model.evaluation import Evaluation
from tasks.model.outcome import Outcome
from tasks.pipeline.upload import UploadTarget, quarantine_bundle, store_documents
from tasks.riskos.response import Bundle
from tasks.storage.bucket import Bucket
from tasks.storage.manifest import Manifest, read_manifest
from tasks.storage.manifest_records import BundleRecord, DocumentRecord, ResponseRecord, TriggerRecord, UnreadableRecord
from tasks.storage.revision import commit
from tasks.storage.run_list import RunSource, store_run_list
from tests.conftest import S3

NAMES = ("documentfrontDoc_Front_1_blob.jpg", "documentbackDoc_Back_1_blob.jpg", "Doc_Selfie_1_blob.jpg")
PREFIX = "the/archive"


class ArchiveEditor(Protocol):
    """Direct access to the objects of an archive, to tamper with them."""

    def listed(self) -> list[str]: ...
    def get(self, key: str) -> bytes: ...
    def put(self, key: str, data: bytes) -> None: ...
    def delete(self, key: str) -> None: ...


@dataclass(frozen=True)
class FolderEditor:
    root: Path

    def listed(self) -> list[str]:
        return sorted(path.relative_to(self.root).as_posix() for path in self.root.rglob("*") if path.is_file())

    def get(self, key: str) -> bytes:
        return (self.root / key).read_bytes()

    def put(self, key: str, data: bytes) -> None:
        path = self.root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def delete(self, key: str) -> None:
        (self.root / key).unlink()


@dataclass(frozen=True)
class BucketEditor:
    s3: S3

    def listed(self) -> list[str]:
        pages = self.s3.client.get_paginator("list_objects_v2").paginate(Bucket=self.s3.bucket)
        return [each["Key"].removeprefix(f"{PREFIX}/") for page in pages for each in page.get("Contents", ())]

    def get(self, key: str) -> bytes:
        data: bytes = self.s3.client.get_object(Bucket=self.s3.bucket, Key=f"{PREFIX}/{key}")["Body"].read()
        return data

    def put(self, key: str, data: bytes) -> None:
        """Write an object; keep its metadata and tags."""
        target, attributes = {"Bucket": self.s3.bucket, "Key": f"{PREFIX}/{key}"}, {}
        if key in self.listed():
            tags = self.s3.client.get_object_tagging(**target)["TagSet"]
            attributes = {
                "Metadata": self.s3.client.head_object(**target)["Metadata"],
                "Tagging": "&".join(f"{tag['Key']}={tag['Value']}" for tag in tags),
            }
        self.s3.client.put_object(**target, **attributes, Body=data, ChecksumAlgorithm="SHA256")

    def delete(self, key: str) -> None:
        self.s3.client.delete_object(Bucket=self.s3.bucket, Key=f"{PREFIX}/{key}")


def eval_ids(count: int, seed: int = 1) -> list[str]:
    dice = random.Random(seed)  # noqa: S311  # not a secret
    return [str(UUID(int=dice.getrandbits(128))) for _ in range(count)]


async def fill(bucket: Bucket, ids: Sequence[str], *, size: int = 2_000) -> None:
    """Archive evaluations of every kind, and store their IDs as the list of a run.

    One in five has three revisions, one in ten is unreadable, and one in ten has no documents.
    """
    for number, eval_id in enumerate(ids):
        match number % 10:
            case 3:
                await archive(bucket, eval_id, Outcome.NO_DOCUMENTS)
            case 6:
                await archive(bucket, eval_id, Outcome.UNREADABLE, documents(eval_id, 1, size)[:2])
            case 1 | 8:
                for revision in (1, 2, 3):
                    await archive(bucket, eval_id, Outcome.ARCHIVED, documents(eval_id, revision, size))
            case _:
                await archive(bucket, eval_id, Outcome.ARCHIVED, documents(eval_id, 1, size))
    await store_run(bucket, ids, "q3")


async def store_run(bucket: Bucket, ids: Sequence[str], run: str) -> None:
    fingerprint = hashlib.sha256(b"".join(UUID(eval_id).bytes for eval_id in ids)).hexdigest()
    source = RunSource(name="ids.txt", fingerprint=fingerprint, ids=len(ids), repeated=0, bad=0)
    await store_run_list(bucket, ids, run=run, environment="sandbox", account="default", refresh=False, source=source)


def documents(eval_id: str, revision: int, size: int) -> list[Member]:
    return list(_members(eval_id, revision, size))


def _members(eval_id: str, revision: int, size: int) -> Iterator[Member]:
    for name in NAMES:
        dice = random.Random(f"{eval_id}{revision}{name}")  # noqa: S311  # not a secret
        data = b"\xff\xd8\xff\xe0" + dice.randbytes(size)
        yield Member(f"user_uploaded/{name}", data, hashlib.sha256(data).hexdigest(), len(data), None)


async def archive(bucket: Bucket, eval_id: str, outcome: Outcome, members: Sequence[Member] = ()) -> None:
    """Archive an evaluation as a worker does, given its documents."""
    evaluation = Evaluation(eval_id, "sandbox")
    target, at = UploadTarget(bucket, {"team": "kyc"}), "2026-11-23T04:00:00.000Z"
    stored = await store_documents(target, evaluation, [identify(member) for member in members], archived_at=at)
    bundle = f"the bundle of {eval_id}".encode()
    sha256 = hashlib.sha256(bundle).hexdigest()
    if outcome is Outcome.UNREADABLE:
        await quarantine_bundle(target, evaluation, Bundle(data=bundle, sha256=sha256, filename=None, size=len(bundle)))
    manifest = Manifest(
        schema=1,
        eval_id=eval_id,
        environment="sandbox",
        account="default",
        outcome=outcome,  # type: ignore[arg-type]
        revision=1,
        previous=None,
        documents=tuple(
            DocumentRecord(
                name=each.document.name,
                kind=each.document.kind.value,
                key=each.key,
                media_type=each.document.media_type,
                size=each.document.size,
                sha256=each.document.sha256,
                modified=None,
            )
            for each in stored
        ),
        unreadable=(UnreadableRecord(name="x", cause="wrong_crc"),) if outcome is Outcome.UNREADABLE else (),
        bundle=BundleRecord(filename=None, size=len(bundle), sha256=sha256) if members else None,
        response=ResponseRecord(status=200, message=None),
        no_documents=None,
        trigger=TriggerRecord(source="backfill", run="q3", event_type=None, event_id=None),
        retrieved_at=at,
        archived_at=at,
        archiver="docv-archive",
    )
    await commit(bucket, evaluation, manifest, await read_manifest(bucket, evaluation))
