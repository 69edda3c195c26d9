"""Disposals in S3 remove every version, and leave documents under locks and legal holds.

moto enforces locks and legal holds when objects are deleted. It answers GetObjectRetention with 500 on some locked
buckets, so the tests answer that call themselves. It cannot change its clock, so no lock ends in these tests.
"""

import asyncio
import itertools
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from scripts.archive_access.s3_client import S3Archive, open_s3_archive
from scripts.erase.versions import S3Versions
from scripts.retention import survey
from scripts.retention.assessment import DocumentState
from scripts.retention.disposal import DisposalStores
from tasks.model.outcome import Outcome
from tasks.storage.open_bucket import open_bucket
from tests.archives import archive as archive_evaluation
from tests.archives import documents, eval_ids, fill
from tests.conftest import S3
from tests.retention import answer_lock_requests
from tests.scripts.erase.test_erasure import CrashingWrapper, SimulatedCrash
from tests.scripts.retention.disposals import RetainedArchive
from worker.clients.archive import open_archive
from worker.config.settings import Settings

DUE = "2029-11-24"
PLAIN, OTHER = eval_ids(2)
_RETENTION = "<Retention><Mode>{}</Mode><RetainUntilDate>2031-01-01T00:00:00Z</RetainUntilDate></Retention>"


@dataclass
class VersionedArchive(RetainedArchive):
    """An archive in a bucket with versions and Object Lock.

    Attributes:
        s3: the bucket.
        retentions: answers to GetObjectRetention by a part of the key.
    """

    s3: S3 = field(kw_only=True)
    retentions: dict[str, str] = field(default_factory=dict)

    def open(self) -> S3Archive:
        archive = open_s3_archive(self.settings)
        assert archive
        archive.client.meta.events.register("before-send.s3.GetObjectRetention", answer_lock_requests(self.retentions))
        return archive

    def versioned(self, stores: DisposalStores) -> DisposalStores:
        return replace(stores, versions=S3Versions(self.open()))

    def interrupt_at(self, call: int) -> None:
        countdown = itertools.count(-call)

        def wrap(stores: DisposalStores) -> DisposalStores:
            versions = CrashingWrapper(S3Versions(self.open()), countdown)
            return replace(stores, bucket=CrashingWrapper(stores.bucket, countdown), versions=versions)

        self.wrapped = wrap

    def versions(self, kind: str) -> list[dict[str, Any]]:
        """Return all versions and delete markers of documents of a kind."""
        listed = self.s3.client.list_object_versions(Bucket=self.s3.bucket, Prefix="kyc/sandbox/")
        found = [*listed.get("Versions", ()), *listed.get("DeleteMarkers", ())]
        return [each for each in found if f"/{kind}/" in each["Key"]]


@pytest.fixture
async def archive(s3: S3, monkeypatch: pytest.MonkeyPatch) -> VersionedArchive:
    s3.client.put_bucket_versioning(Bucket=s3.bucket, VersioningConfiguration={"Status": "Enabled"})
    s3.client.put_object_lock_configuration(Bucket=s3.bucket, ObjectLockConfiguration={"ObjectLockEnabled": "Enabled"})
    settings = Settings(archive_url=f"s3://{s3.bucket}/kyc", s3_endpoint=s3.endpoint)
    bucket = open_bucket(open_archive(settings))
    await fill(bucket, [PLAIN], size=100)
    archive = VersionedArchive(settings, bucket, s3=s3)
    archive.wrapped = archive.versioned
    monkeypatch.setattr(survey, "open_s3_archive", lambda _: archive.open())
    return archive


async def test_all_versions_delete_markers_and_unfinished_uploads_of_a_document_are_removed(
    archive: VersionedArchive,
) -> None:
    client, (selfie,), fronts = archive.s3.client, archive.versions("selfie"), archive.versions("document_front")
    where = {"Bucket": archive.s3.bucket, "Key": selfie["Key"]}
    client.put_object(**where, Body=b"another version")
    client.delete_object(**where)
    client.put_object(**where | {"Key": selfie["Key"].replace(".jpg", ".png")}, Body=b"with another extension")
    client.create_multipart_upload(**where)
    assert len(archive.versions("selfie")) == 4

    result = await archive.dispose(DUE)

    assert (result.documents, result.failed) == (1, set())
    assert archive.versions("selfie") == []
    assert archive.versions("document_front") == fronts
    assert "Uploads" not in client.list_multipart_uploads(Bucket=archive.s3.bucket)
    assert client.get_object_tagging(Bucket=archive.s3.bucket, Key=f"kyc/sandbox/{PLAIN}/manifest.json")["TagSet"]


@pytest.mark.parametrize(
    ("mode", "state"),
    [("COMPLIANCE", DocumentState.COMPLIANCE_LOCK), ("GOVERNANCE", DocumentState.GOVERNANCE_LOCK)],
)
async def test_a_document_under_retention_stays_and_the_plan_counts_it(
    archive: VersionedArchive, mode: str, state: DocumentState
) -> None:
    (selfie,) = archive.versions("selfie")
    retention = {"Mode": mode, "RetainUntilDate": datetime.now(UTC) + timedelta(days=1)}
    archive.s3.client.put_object_retention(Bucket=archive.s3.bucket, Key=selfie["Key"], Retention=retention)
    archive.retentions["/selfie/"] = _RETENTION.format(mode)

    plan, counts = await archive.plan(DUE, until="2030-12-31")
    assert (counts.total(state)[0], plan.totals.documents) == (1, 0)
    plan, counts = await archive.plan(DUE, until="2031-01-01")
    assert (counts.total(state)[0], plan.totals.documents) == (0, 1)
    result = await archive.apply(plan, DUE)

    assert (result.documents, result.held_back, result.failed) == (0, {state: 1}, set())
    assert archive.versions("selfie") == [selfie]
    assert (await archive.manifest(PLAIN)).disposed == ()


async def test_a_document_under_an_s3_legal_hold_stays_even_if_no_matter_names_it(archive: VersionedArchive) -> None:
    (selfie,) = archive.versions("selfie")
    which = {"Bucket": archive.s3.bucket, "Key": selfie["Key"]}
    archive.s3.client.put_object_legal_hold(**which, LegalHold={"Status": "ON"})
    plan, _ = await archive.plan(DUE)

    assert (await archive.apply(plan, DUE)).held_back == {DocumentState.HOLD: 1}
    assert archive.versions("selfie") == [selfie]

    archive.s3.client.put_object_legal_hold(**which, LegalHold={"Status": "OFF"})
    assert (await archive.apply(plan, DUE)).documents == 1
    assert archive.versions("selfie") == []


async def test_an_application_that_is_killed_at_any_call_is_completed_by_the_same_command(
    archive: VersionedArchive,
) -> None:
    plan, _ = await archive.plan(DUE)
    (selfie,) = archive.versions("selfie")
    sha256 = selfie["Key"].rpartition("/")[2].partition(".")[0]
    for call in itertools.count():
        archive.interrupt_at(call)
        try:
            result = await archive.apply(plan, DUE)
        except SimulatedCrash:
            listed = {each.sha256 for each in (await archive.manifest(PLAIN)).disposed}
            assert archive.versions("selfie") or sha256 in listed
            assert not (archive.versions("selfie") and await archive.certificates())
        else:
            break

    assert call > 8
    assert (result.documents, archive.versions("selfie")) == (1, [])
    ((_, certificate),) = (await archive.certificates()).items()
    assert [each["sha256"] for each in certificate["documents"]] == [sha256]


async def test_two_machines_may_apply_the_same_plan_at_once(archive: VersionedArchive) -> None:
    await archive_evaluation(archive.bucket, OTHER, Outcome.ARCHIVED, documents(OTHER, 1, 100))
    plan, _ = await archive.plan(DUE)

    results = await asyncio.gather(archive.apply(plan, DUE), archive.apply((await archive.plan(DUE))[0], DUE))

    assert [each.failed for each in results] == [set(), set()]
    assert archive.versions("selfie") == []
    ((_, certificate),) = (await archive.certificates()).items()
    assert (len(certificate["documents"]), certificate["evaluations"]) == (plan.totals.documents, 2)
