"""Each version has the lock of its schedule and the legal hold of its matters. moto enforces both."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from obstore.store import S3Store
from redis.asyncio import Redis

from scripts.simulator.damage import garbage
from tasks.model.outcome import Evidence, Outcome
from tasks.pipeline.retention import RetentionPolicy
from tasks.storage.bucket import S3Bucket
from tasks.storage.revision import amend
from tests.conftest import S3
from tests.disposals import make_schedule
from tests.riskos import bundle_reply
from tests.tasks.pipeline.test_pipeline_retention import EVALUATION, Archive, ListingBucket
from worker.clients.archive import open_archive
from worker.clients.object_lock import LockingClient
from worker.config.settings import Settings

FILES = {
    "front.jpg": b"front",
    "back.jpg": b"back",
    "selfie.jpg": b"selfie",
    "case_attachments/1.jpg": b"attached",
    "user_uploaded/secondary/bill.jpg": b"bill",
    "x.jpg": b"x",
}
DAYS = 10
# Days from today, which is not known yet: the day may change between collecting the tests and running them.
USUAL = DAYS + 1
CAPTURED = -100
SCHEDULE = make_schedule(
    {"kind": "selfie", "keep_for": "1000d", "clock": "captured", "keep": "must"},
    {"kind": "document_front", "keep_for": "5y", "clock": "account_closed", "keep": "must"},
    {"kind": "document_back", "keep_for": "3d", "clock": "archived"},
    {"kind": "attachment", "keep_for": "forever", "keep": "must"},
    {"kind": "secondary_document", "keep_for": "50d", "clock": "captured", "then": "review"},
)
LOCKS = {
    "selfie": CAPTURED + 1001,
    "document_front": USUAL,
    "document_back": 4,
    "attachment": USUAL,
    "secondary_document": None,
    "other": USUAL,
}
Version = tuple[int | None, bool]


class LockedArchive:
    """An archive in a bucket with Object Lock."""

    def __init__(self, s3: S3, redis: Redis) -> None:
        self._client, self._name, self._today = s3.client, f"locked-{uuid4()}", datetime.now(UTC).date()
        s3.client.create_bucket(Bucket=self._name, ObjectLockEnabledForBucket=True)
        store = open_archive(Settings(archive_url=f"s3://{self._name}", s3_endpoint=s3.endpoint))
        assert isinstance(store, S3Store)
        client = LockingClient(store, "GOVERNANCE", DAYS)
        policy = RetentionPolicy(SCHEDULE, lock_days=DAYS, today=lambda: self._today)
        unlocked = S3Bucket(store, write_client=client.without_lock())
        self.archive = Archive(redis, store, ListingBucket(store, write_client=client), policy, unlocked)

    async def deliver(self, *answers: dict[str, bytes] | bytes, **order: Any) -> Outcome:
        at = datetime.combine(self._today + timedelta(days=CAPTURED), datetime.min.time(), UTC).timestamp()
        return (await self.archive.archive(*answers, event_at=at, **order)).outcome

    async def hold(self, *kinds: str) -> None:
        """Add a matter to the manifest. It covers only the given kinds, or all documents if there are none."""
        changes = {"matters": ("acme-v-bolt",), "matter_kinds": {"acme-v-bolt": kinds} if kinds else {}}
        await amend(self.archive.bucket, EVALUATION, lambda before: before.model_copy(update=changes))

    def versions(self) -> dict[str, list[Version]]:
        """Return the lock, in days from today, and the legal hold of each version, by folder or file.

        Versions without a hold come first.
        """
        found: dict[str, list[Version]] = {}
        for each in self._client.list_object_versions(Bucket=self._name)["Versions"]:
            head = self._client.head_object(Bucket=self._name, Key=each["Key"], VersionId=each["VersionId"])
            until = head.get("ObjectLockRetainUntilDate")
            assert head.get("ObjectLockMode") == ("GOVERNANCE" if until else None)
            assert until is None or until.astimezone(UTC).time() == datetime.min.time()
            place = each["Key"].partition(f"{EVALUATION.eval_id}/")[2].split("/")[0]
            days = (until.astimezone(UTC).date() - self._today).days if until else None
            version = days, head.get("ObjectLockLegalHoldStatus") == "ON"
            found.setdefault(place, []).append(version)
        return {place: sorted(some, key=lambda version: version[1]) for place, some in found.items()}


@pytest.fixture
def locked(s3: S3, redis: Redis) -> LockedArchive:
    return LockedArchive(s3, redis)


async def test_the_lock_of_each_version_follows_the_clock_of_its_rule(locked: LockedArchive) -> None:
    assert await locked.deliver(FILES) is Outcome.ARCHIVED

    assert locked.versions() == {kind: [(until, False)] for kind, until in {**LOCKS, "manifest.json": USUAL}.items()}


async def test_each_version_that_is_written_under_a_matter_is_under_a_legal_hold(locked: LockedArchive) -> None:
    await locked.deliver(FILES)
    await locked.hold()
    kept = {"revisions": [(USUAL, True)], "manifest.json": [(USUAL, False), (USUAL, True)]}
    assert {name: locked.versions()[name] for name in kept} == kept

    changed = {name: data + b"again" for name, data in FILES.items()}
    assert await locked.deliver(changed, refresh=True) is Outcome.ARCHIVED

    assert locked.versions() == {
        **{kind: [(until, False), (until, True)] for kind, until in LOCKS.items()},
        "revisions": [(USUAL, True)] * 2,
        "manifest.json": [(USUAL, False), *[(USUAL, True)] * 2],
    }


async def test_only_documents_of_the_kinds_of_a_matter_are_under_a_legal_hold(locked: LockedArchive) -> None:
    await locked.deliver(FILES)
    await locked.hold("selfie")
    changed = {name: data + b"again" for name, data in FILES.items()}
    assert await locked.deliver(changed, refresh=True) is Outcome.ARCHIVED
    documents = {kind: [(until, False), (until, kind == "selfie")] for kind, until in LOCKS.items()}
    assert {kind: locked.versions()[kind] for kind in LOCKS} == documents
    assert locked.versions()["manifest.json"] == [(USUAL, False), *[(USUAL, True)] * 2]


async def test_a_bundle_in_quarantine_is_under_a_legal_hold(locked: LockedArchive) -> None:
    damaged = bundle_reply(garbage(FILES))
    await locked.deliver({"x.jpg": b"x"})
    await locked.hold()
    await locked.deliver(damaged, damaged, refresh=True)
    (key,) = [name for name in locked.versions() if name.endswith(".zip")]
    assert locked.versions()[key] == [(USUAL, True)]


async def test_restricted_images_have_no_lock_but_the_legal_hold_of_their_matters(locked: LockedArchive) -> None:
    await locked.deliver({"x.jpg": b"x"}, evidence=(Evidence.UNDER_AGE,))
    await locked.hold()
    await locked.deliver({"x.jpg": b"y"}, evidence=(Evidence.UNDER_AGE,), refresh=True)
    assert locked.versions()["other"] == [(None, False), (None, True)]


async def test_each_version_has_the_lock_of_the_settings_when_there_is_no_schedule(locked: LockedArchive) -> None:
    locked.archive.retention = RetentionPolicy(lock_days=DAYS)
    await locked.deliver(FILES)
    assert {tuple(each) for each in locked.versions().values()} == {((USUAL, False),)}
