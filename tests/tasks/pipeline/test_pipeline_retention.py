"""Due documents are not stored, and disposed documents do not come back."""

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from typing import Any

import aiohttp
import obstore
import pytest
from obstore.store import MemoryStore, ObjectStore
from redis.asyncio import Redis

from scripts.erase.marker import replace_with_marker
from scripts.erase.receipt import ErasureRequest, Receipt, StoredReceipt
from scripts.simulator.damage import garbage, wrong_crc
from tasks.bundle.unpacker import BundleUnpacker
from tasks.bundle.zip import Limits
from tasks.errors import IntegrityError
from tasks.model.evaluation import Evaluation
from tasks.model.job import Job, Queue, Trigger
from tasks.model.outcome import ArchiveResult, Evidence, ManifestOutcome, Outcome, SourceStatus
from tasks.pipeline.erased_meanwhile import archive_guarded
from tasks.pipeline.pipeline import LeaseWatch, PipelineContext, archive
from tasks.pipeline.retention import RetentionPolicy
from tasks.pipeline.upload import UploadTarget
from tasks.resilience.archive_gate import ArchiveGate
from tasks.resilience.retry import RetryPolicy
from tasks.retention.event import EventReport, record_event
from tasks.riskos.download import DownloadOptions
from tasks.storage.bucket import S3Bucket
from tasks.storage.manifest import Manifest, read_manifest, utc_now
from tasks.storage.manifest_records import ErasedKindRecord
from tasks.storage.revision import amend
from tests.disposals import dispose_in_store, make_schedule
from tests.riskos import Clock, ReceivedRequest, Reply, bundle_reply, json_reply, serve_replies, serve_requests
from tests.zips import zip_of
from worker.config.settings import Settings

EVALUATION = Evaluation("0b54a4d4-6e5b-4f3c-9d2a-7c1f0e8b9a10", "sandbox")
FILES = {"front.jpg": b"front" * 9, "selfie.jpg": b"selfie" * 9}
OTHERS = {name: data + b"again" for name, data in FILES.items()}
RENAMED = {"case_attachments/1.jpg": FILES["front.jpg"], "x.jpg": FILES["selfie.jpg"]}
CAPTURED = datetime(2020, 2, 28, 12, tzinfo=UTC).timestamp()
EXPIRED = date(2023, 3, 1)
"""The first day after a period of three years from the capture."""
NOTHING = json_reply(400, b'{"message": "No Documents Found"}')
OF_SELFIES = {"kind": "selfie", "keep_for": "3y", "clock": "captured"}
OF_ALL = {"keep_for": "3y", "clock": "captured"}
FROM_ARCHIVED = {"keep_for": "3y", "clock": "archived"}
CLOSED = {"keep_for": "1y", "clock": "account_closed"}


def policy(*rules: dict[str, object], today: date = EXPIRED) -> RetentionPolicy:
    return RetentionPolicy(make_schedule(*rules), today=lambda: today)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class ListingBucket(S3Bucket):
    """A bucket that counts its listings."""

    listings = 0

    def list_objects(self, prefix: str, after: str = "") -> Any:
        self.listings += 1
        return super().list_objects(prefix, after)


@dataclass
class Archive:
    """An archive, and the schedule of its worker."""

    redis: Redis
    store: ObjectStore
    bucket: ListingBucket
    retention: RetentionPolicy = field(default_factory=RetentionPolicy)
    unlocked: S3Bucket | None = None

    @asynccontextmanager
    async def context(self, url: str) -> AsyncIterator[PipelineContext]:
        options = DownloadOptions(no_documents_texts=Settings().no_documents_texts)
        async with aiohttp.ClientSession() as http:
            client = Clock(self.redis).make_client(url, http, options, RetryPolicy(quick_attempts=1, quick_pause=0.0))
            yield PipelineContext(
                client,
                ArchiveGate(client.holds, client.breaker),
                UploadTarget(self.bucket, {"team": "kyc"}),
                self.bucket,
                BundleUnpacker(Limits()),
                retention=self.retention,
                restricted_target=UploadTarget(self.unlocked) if self.unlocked else None,
            )

    async def archive(self, *answers: dict[str, bytes] | bytes, **order: Any) -> ArchiveResult:
        """Make an attempt while RiskOS answers with these files, or bytes, in order."""
        replies = [bundle_reply(zip_of(each)) if isinstance(each, dict) else each for each in answers]
        async with serve_replies(*replies) as server:
            result = await self.attempt(server.url, **order)
            assert len(server.requests) == len(replies)
        return result

    async def attempt(self, url: str, **order: Any) -> ArchiveResult:
        job = Job(EVALUATION.eval_id, "token", Queue.BACKFILL, "default", False, 0, 0, Trigger("run", run="q3"))  # noqa: FBT003
        async with self.context(url) as ctx:
            return await archive(replace(job, **order), ctx)

    async def dispose(self, *names: str) -> None:
        await dispose_in_store(self.store, EVALUATION, names)

    async def erase(self) -> None:
        """Erase the evaluation, so that only its marker is left."""
        receipt = Receipt.of_request(EVALUATION, ErasureRequest("request 4711", "operator", "a-host"), utc_now())
        await replace_with_marker(self.bucket, EVALUATION, StoredReceipt("receipts/a.json", receipt), {})
        keys = [str(each["path"]) for batch in self.store.list() for each in batch]
        await obstore.delete_async(self.store, [key for key in keys if key != EVALUATION.manifest_key])

    async def manifest(self) -> Manifest:
        found = await read_manifest(self.bucket, EVALUATION)
        assert found
        return found.manifest

    def stored(self) -> set[bytes]:
        """Return the bytes of all stored documents."""
        keys = [str(each["path"]) for batch in self.store.list() for each in batch]
        return {bytes(obstore.get(self.store, key).bytes()) for key in keys if key.endswith((".jpg", ".txt", ".bin"))}


@pytest.fixture
def archived(redis: Redis) -> Archive:
    store = MemoryStore()
    return Archive(redis, store, ListingBucket(store))


async def test_a_document_that_is_due_when_it_arrives_is_listed_as_disposed_and_not_stored(archived: Archive) -> None:
    archived.retention = policy(OF_SELFIES)

    result = await archived.archive(FILES, event_at=CAPTURED)

    assert (result.outcome, result.ok) == (Outcome.ARCHIVED, True)
    assert archived.stored() == {FILES["front.jpg"]}
    manifest = await archived.manifest()
    assert [each.name for each in manifest.documents] == ["front.jpg"]
    (gone,) = manifest.disposed
    digest = sha256(FILES["selfie.jpg"])
    assert (gone.kind, gone.sha256, gone.size) == ("selfie", digest, len(FILES["selfie.jpg"]))
    assert gone.key == EVALUATION.document_key("selfie", digest, "txt")
    assert (gone.rule, gone.clock, gone.started, gone.due) == ("rule-0", "captured", date(2020, 2, 28), EXPIRED)
    assert (gone.archived_at, gone.receipt) == (None, None)
    assert (manifest.source_status, manifest.manifest_outcome) == (SourceStatus.PRESENT, ManifestOutcome.ARCHIVED)


@pytest.mark.parametrize(
    ("rule", "order"),
    [
        (OF_ALL, {}),
        (OF_ALL | {"then": "review"}, {"event_at": CAPTURED}),
        (OF_ALL | {"run": "another"}, {"event_at": CAPTURED}),
        (OF_ALL | {"account": "another"}, {"event_at": CAPTURED}),
        (OF_ALL | {"environment": "production"}, {"event_at": CAPTURED}),
        (OF_ALL | {"tag": {"team": "another"}}, {"event_at": CAPTURED}),
        (OF_ALL | {"evidence": "document_type:Military"}, {"event_at": CAPTURED}),
        (FROM_ARCHIVED, {"event_at": CAPTURED}),
        (CLOSED, {"event_at": CAPTURED}),
        ({"keep_for": "forever"}, {"event_at": CAPTURED}),
        (OF_ALL | {"keep_for": "1097d"}, {"event_at": CAPTURED}),
    ],
    ids=str,
)
async def test_a_document_is_stored_unless_it_is_due_under_its_rule(
    archived: Archive, rule: dict[str, object], order: dict[str, Any]
) -> None:
    archived.retention = policy(rule)

    assert (await archived.archive(FILES, **order)).outcome is Outcome.ARCHIVED

    assert archived.stored() == set(FILES.values())
    assert (await archived.manifest()).disposed == ()


async def test_rules_match_the_facts_of_a_first_delivery(archived: Archive) -> None:
    archived.retention = policy(
        OF_ALL
        | {"run": "q3", "account": "default", "environment": "sandbox", "tag": {"team": "kyc", "source": "other"}},
        OF_ALL | {"tag": {"team": "kyc", "source": "user_uploaded"}},
    )

    await archived.archive({**FILES, "x.jpg": b"x"}, event_at=CAPTURED)

    rules = {each.kind: each.rule for each in (await archived.manifest()).disposed}
    assert rules == {"document_front": "rule-1", "selfie": "rule-1", "other": "rule-0"}


async def test_an_evaluation_counts_as_withheld_and_then_as_unchanged_when_all_documents_are_due(
    archived: Archive,
) -> None:
    archived.retention = policy(OF_ALL)

    first = await archived.archive(FILES, event_at=CAPTURED)
    assert (first.outcome, first.answer, first.ok) == (Outcome.WITHHELD, Outcome.ARCHIVED, True)
    manifest = await archived.manifest()
    assert (manifest.outcome, manifest.manifest_outcome) == (Outcome.ARCHIVED, ManifestOutcome.DISPOSED)

    unchanged = ArchiveResult(Outcome.UNCHANGED, ManifestOutcome.DISPOSED)
    assert await archived.archive() == unchanged, "a redelivery sends no request"
    again = await archived.archive(FILES, refresh=True)
    assert again == replace(unchanged, answer=Outcome.ARCHIVED)
    assert await archived.manifest() == manifest
    others = await archived.archive(OTHERS, refresh=True)
    assert others == replace(unchanged, answer=Outcome.ARCHIVED, has_written=True)
    assert len((await archived.manifest()).disposed) == 4
    gone = await archived.archive(NOTHING, refresh=True)
    assert (gone.outcome, gone.unchanged, gone.reason) == (Outcome.UNCHANGED, ManifestOutcome.DISPOSED, None)
    assert archived.stored() == set()


@pytest.mark.parametrize("files", [FILES, RENAMED], ids=["same names", "other names"])
@pytest.mark.parametrize("names", [("selfie.jpg",), ("front.jpg", "selfie.jpg")], ids=["one", "all"])
async def test_a_refresh_without_a_schedule_does_not_restore_disposed_documents(
    archived: Archive, files: dict[str, bytes], names: tuple[str, ...]
) -> None:
    await archived.archive(FILES)
    await archived.dispose(*names)
    disposed = (await archived.manifest()).disposed

    result = await archived.archive(files, refresh=True)

    assert result.ok
    assert archived.stored() == {FILES[name] for name in FILES.keys() - set(names)}
    assert (await archived.manifest()).disposed == disposed
    assert archived.bucket.listings == 0


@pytest.mark.parametrize("names", [("selfie.jpg",), ("front.jpg", "selfie.jpg")], ids=["one", "all"])
async def test_an_order_after_an_erasure_restores_only_documents_that_were_not_disposed_of(
    archived: Archive, names: tuple[str, ...]
) -> None:
    await archived.archive(FILES)
    await archived.dispose(*names)
    disposed = (await archived.manifest()).disposed
    await archived.erase()
    assert archived.stored() == set()

    result = await archived.archive(FILES, even_if_erased=True)
    await archived.archive(RENAMED, refresh=True)

    assert result.outcome is (Outcome.ARCHIVED if len(names) == 1 else Outcome.WITHHELD)
    assert archived.stored() == {FILES[name] for name in FILES.keys() - set(names)}
    assert (await archived.manifest()).disposed == disposed


@pytest.mark.parametrize("is_erased", [False, True], ids=["kept", "erased"])
async def test_disposed_documents_are_recorded_as_gone_at_the_source_when_riskos_has_none(
    archived: Archive, *, is_erased: bool
) -> None:
    await archived.archive(FILES)
    await archived.dispose(*FILES)
    if is_erased:
        await archived.erase()

    await archived.archive(NOTHING, refresh=True, even_if_erased=True)

    manifest = await archived.manifest()
    assert (manifest.manifest_outcome, manifest.source_status) == (ManifestOutcome.DISPOSED, SourceStatus.GONE)


async def test_a_captured_image_that_arrives_again_with_other_bytes_is_not_stored_if_its_kind_is_due(
    archived: Archive,
) -> None:
    await archived.archive(FILES)
    archived_at = datetime.fromisoformat((await archived.manifest()).archived_at)
    late = date(archived_at.year + 4, 1, 1)
    archived.retention = policy({"kind": "selfie", **FROM_ARCHIVED}, today=late)
    await archived.dispose("selfie.jpg")

    result = await archived.archive(OTHERS, refresh=True)

    assert result.outcome is Outcome.ARCHIVED, "the front with other bytes is new"
    assert archived.stored() == {FILES["front.jpg"], OTHERS["front.jpg"]}
    assert [each.receipt is None for each in (await archived.manifest()).disposed] == [False, True]


async def test_a_held_document_that_is_due_stays_held_until_a_command_disposes_of_it(archived: Archive) -> None:
    await archived.archive(FILES)
    before = await archived.manifest()
    archived.retention = policy(FROM_ARCHIVED, today=date(2999, 1, 1))

    assert (await archived.archive(FILES, refresh=True)).outcome is Outcome.UNCHANGED

    assert await archived.manifest() == before
    assert archived.stored() == set(FILES.values())


async def test_a_due_document_is_listed_as_held_when_an_attempt_without_a_manifest_stored_it(
    archived: Archive,
) -> None:
    await archived.archive(FILES, event_at=CAPTURED)
    await obstore.delete_async(archived.store, EVALUATION.manifest_key)
    archived.retention = policy(OF_ALL)

    await archived.archive({**FILES, "case_attachments/1.jpg": b"new"}, event_at=CAPTURED)

    manifest = await archived.manifest()
    assert [each.name for each in manifest.documents] == list(FILES)
    assert [each.kind for each in manifest.disposed] == ["attachment"]
    assert archived.stored() == set(FILES.values())


async def test_a_document_under_a_matter_is_stored_even_if_it_is_due(archived: Archive) -> None:
    await archived.archive(FILES, event_at=CAPTURED)
    await archived.dispose("selfie.jpg")
    await amend(archived.bucket, EVALUATION, lambda before: before.model_copy(update={"matters": ("acme-v-bolt",)}))
    archived.retention = policy(OF_ALL)

    assert (await archived.archive({**FILES, "x.jpg": b"x"}, refresh=True)).outcome is Outcome.ARCHIVED

    assert archived.stored() == {FILES["front.jpg"], b"x"}, "disposed bytes do not come back"
    assert [each.kind for each in (await archived.manifest()).disposed] == ["selfie"]


async def test_bytes_with_two_kinds_are_kept_as_long_as_one_rule_keeps_them(archived: Archive) -> None:
    archived.retention = policy(OF_SELFIES)

    await archived.archive({"selfie.jpg": b"same", "front.jpg": b"same"}, event_at=CAPTURED)

    manifest = await archived.manifest()
    assert ({each.kind for each in manifest.documents}, manifest.disposed) == ({"selfie", "document_front"}, ())


async def test_bytes_with_two_names_are_listed_as_disposed_once(archived: Archive) -> None:
    archived.retention = policy(OF_ALL)

    await archived.archive({"case_attachments/1.jpg": b"same", "case_attachments/2.jpg": b"same"}, event_at=CAPTURED)

    assert len((await archived.manifest()).disposed) == 1


# Events


async def report(archived: Archive, event: str, day: date) -> None:
    now = datetime(day.year, day.month, day.day, tzinfo=UTC)
    await record_event(archived.bucket, EVALUATION, EventReport(event, day, "records"), now)
    archived.bucket.listings = 0


async def test_the_events_of_an_evaluation_start_the_clocks_of_a_later_delivery(archived: Archive) -> None:
    archived.retention = policy(CLOSED, today=date(2022, 1, 1))
    await archived.archive(FILES)
    assert archived.bucket.listings == 0, "a first delivery has no events"
    await report(archived, "account_closed", date(2020, 6, 30))

    await archived.archive({**FILES, "case_attachments/1.jpg": b"late"}, refresh=True)

    assert archived.bucket.listings == 1
    manifest = await archived.manifest()
    assert [each.name for each in manifest.documents] == list(FILES)
    (late,) = manifest.disposed
    assert (late.kind, late.clock, late.started) == ("attachment", "account_closed", date(2020, 6, 30))


@pytest.mark.parametrize("rules", [(), (OF_ALL,), (FROM_ARCHIVED,)], ids=["no schedule", "captured", "archived"])
async def test_events_are_not_listed_unless_a_rule_has_one_as_its_clock(
    archived: Archive, rules: tuple[dict[str, object], ...]
) -> None:
    archived.retention = policy(*rules) if rules else RetentionPolicy()
    for _ in range(2):
        await archived.archive(FILES, refresh=True)
    assert archived.bucket.listings == 0


async def test_events_are_not_listed_when_riskos_delivers_nothing_new(archived: Archive) -> None:
    archived.retention = policy(CLOSED)
    await archived.archive(FILES)
    await archived.dispose(*FILES)
    for answer in (FILES, NOTHING):
        await archived.archive(answer, refresh=True)
    await archived.archive()
    assert archived.bucket.listings == 0


async def test_nothing_is_stored_if_an_event_cannot_be_read(archived: Archive) -> None:
    archived.retention = policy(CLOSED)
    await archived.archive(FILES)
    await obstore.put_async(archived.store, f"events/sandbox/{EVALUATION.eval_id}/x.json", b"{}")
    with pytest.raises(IntegrityError, match="retention event"):
        await archived.archive(OTHERS, refresh=True)
    assert archived.stored() == set(FILES.values())


# Damaged bundles


async def test_a_damaged_bundle_with_due_documents_is_quarantined_and_stays_unreadable(archived: Archive) -> None:
    archived.retention = policy(OF_ALL)
    damaged = bundle_reply(wrong_crc(FILES))

    result = await archived.archive(damaged, damaged, event_at=CAPTURED)

    assert (result.outcome, result.ok) == (Outcome.UNREADABLE, False)
    manifest = await archived.manifest()
    assert (manifest.documents, len(manifest.quarantined)) == ((), 1)
    assert [each.sha256 for each in manifest.disposed] == [sha256(FILES["selfie.jpg"])]
    assert manifest.manifest_outcome is ManifestOutcome.UNREADABLE
    assert archived.stored() == set()


async def test_a_damaged_bundle_whose_second_copy_is_due_counts_as_withheld(archived: Archive) -> None:
    archived.retention = policy(OF_ALL)

    result = await archived.archive(bundle_reply(garbage(FILES)), FILES, event_at=CAPTURED)

    assert (result.outcome, result.unchanged) == (Outcome.WITHHELD, None)
    assert (await archived.manifest()).manifest_outcome is ManifestOutcome.DISPOSED
    assert archived.stored() == set()


# Concurrent commands


@asynccontextmanager
async def serve_after(work: Callable[[], Awaitable[None]], files: dict[str, bytes]) -> AsyncIterator[str]:
    """Serve a bundle, and await ``work`` before each answer."""

    async def answer(_: ReceivedRequest) -> Reply:
        await work()
        return Reply(bundle_reply(zip_of(files)))

    async with serve_requests(answer) as server:
        yield server.url


async def test_a_document_that_is_disposed_of_during_an_attempt_is_not_listed_again(archived: Archive) -> None:
    await archived.archive(FILES)

    async with serve_after(lambda: archived.dispose("selfie.jpg"), FILES) as url:
        result = await archived.attempt(url, refresh=True)

    assert result.unchanged is ManifestOutcome.ARCHIVED
    manifest = await archived.manifest()
    assert [each.name for each in manifest.documents] == ["front.jpg"]
    assert [each.sha256 for each in manifest.disposed] == [sha256(FILES["selfie.jpg"])]


async def test_restricted_images_that_are_due_count_as_withheld(archived: Archive) -> None:
    archived.retention = policy(OF_ALL)
    archived.unlocked = S3Bucket(MemoryStore())
    result = await archived.archive(FILES, event_at=CAPTURED, evidence=(Evidence.MILITARY_ID,))
    assert (result.outcome, [str(each) for each in result.restricted or ()]) == (
        Outcome.WITHHELD,
        ["military", "withheld"],
    )


# Erased kinds


RECEIPT = "receipts/sandbox/0b54a4d4-6e5b-4f3c-9d2a-7c1f0e8b9a10/20250201T040000.000000Z.json"


async def erase_kinds(archived: Archive, *kinds: str) -> None:
    """Record kinds as erased, as `erase --kind` does before it removes any object."""
    records = tuple(ErasedKindRecord(kind=kind, receipt=RECEIPT, at="2025-02-01T04:00:00.000Z") for kind in kinds)
    await amend(archived.bucket, EVALUATION, lambda before: before.model_copy(update={"erased_kinds": records}))


@pytest.mark.parametrize("files", [FILES, OTHERS], ids=["same bytes", "other bytes"])
@pytest.mark.parametrize("rules", [(), (OF_ALL,)], ids=["no schedule", "schedule"])
async def test_documents_of_an_erased_kind_are_listed_as_disposed_and_not_stored(
    archived: Archive, files: dict[str, bytes], rules: tuple[dict[str, object], ...]
) -> None:
    await archived.archive(NOTHING)
    await erase_kinds(archived, "selfie")
    archived.retention = policy(*rules) if rules else RetentionPolicy()

    assert (await archived.archive(files, refresh=True)).outcome is Outcome.ARCHIVED

    assert archived.stored() == {files["front.jpg"]}
    manifest = await archived.manifest()
    assert [each.kind for each in manifest.documents] == ["document_front"]
    (gone,) = manifest.disposed
    assert (gone.kind, gone.sha256, gone.rule, gone.clock) == (
        "selfie",
        sha256(files["selfie.jpg"]),
        "erasure",
        "request",
    )
    assert (gone.started, gone.due, gone.archived_at, gone.receipt) == (date(2025, 2, 1), date(2025, 2, 1), None, None)
    assert (await archived.archive(files, refresh=True)).outcome is Outcome.UNCHANGED
    assert await archived.manifest() == manifest


async def test_an_evaluation_with_only_erased_kinds_counts_as_withheld(archived: Archive) -> None:
    await archived.archive(NOTHING)
    await erase_kinds(archived, "selfie", "document_front")
    assert (await archived.archive(FILES, refresh=True)).outcome is Outcome.WITHHELD
    assert (archived.stored(), (await archived.manifest()).manifest_outcome) == (set(), ManifestOutcome.DISPOSED)


async def test_bytes_of_an_erased_kind_are_not_stored_as_another_kind_of_the_same_bundle(archived: Archive) -> None:
    await archived.archive(NOTHING)
    await erase_kinds(archived, "selfie")
    await archived.archive({"selfie.jpg": b"same", "case_attachments/1.jpg": b"same"}, refresh=True)
    assert archived.stored() == set()
    assert [each.kind for each in (await archived.manifest()).disposed] == ["selfie"]


async def test_held_bytes_of_another_kind_stay_when_they_arrive_as_an_erased_kind(archived: Archive) -> None:
    await archived.archive({"front.jpg": b"same"})
    await erase_kinds(archived, "selfie")
    await archived.archive({"front.jpg": b"same", "selfie.jpg": b"same"}, refresh=True)
    manifest = await archived.manifest()
    assert (archived.stored(), [each.kind for each in manifest.documents]) == ({b"same"}, ["document_front"])
    assert manifest.disposed == ()


async def test_a_damaged_bundle_is_not_kept_once_a_kind_is_erased(archived: Archive) -> None:
    await archived.archive(NOTHING)
    await erase_kinds(archived, "selfie")
    damaged = bundle_reply(wrong_crc(FILES))

    result = await archived.archive(damaged, damaged, refresh=True)

    assert result.outcome is Outcome.UNREADABLE
    manifest = await archived.manifest()
    assert (manifest.manifest_outcome, manifest.quarantined_bundles) == (ManifestOutcome.UNREADABLE, ())
    keys = [str(each["path"]) for batch in archived.store.list() for each in batch]
    assert [key for key in keys if key.startswith("quarantine/")] == []
    assert archived.stored() == set()


@pytest.mark.parametrize("answer", [OTHERS, wrong_crc(OTHERS)], ids=["whole", "damaged"])
async def test_objects_of_a_kind_that_is_erased_during_an_attempt_are_recorded_for_the_eraser(
    archived: Archive, answer: dict[str, bytes] | bytes
) -> None:
    await archived.archive(FILES)
    recorded: list[str] = []

    async def erase(_: ReceivedRequest) -> Reply:
        await erase_kinds(archived, "selfie")
        return Reply(bundle_reply(answer if isinstance(answer, bytes) else zip_of(answer)))

    async with serve_requests(erase) as server, archived.context(server.url) as plain:
        ctx = replace(plain, watch=LeaseWatch(record_leftovers=recorded.extend))
        job = Job(EVALUATION.eval_id, "t", Queue.LIVE, "default", True, 0, 0, Trigger("enqueue"))  # noqa: FBT003
        await archive_guarded(job, EVALUATION, ctx, lambda: archive(job, ctx))

    manifest = await archived.manifest()
    assert "selfie" not in {each.kind for each in manifest.documents if each.sha256 != sha256(FILES["selfie.jpg"])}
    assert manifest.quarantined == ()
    selfie = EVALUATION.document_key("selfie", sha256(OTHERS["selfie.jpg"]), "txt")
    bundle = [EVALUATION.quarantine_key(sha256(answer))] if isinstance(answer, bytes) else []
    assert recorded == [*bundle, selfie]


@pytest.mark.parametrize("refresh", [False, True])
async def test_the_time_of_a_capture_is_recorded_when_it_arrives_after_the_documents(
    archived: Archive,
    refresh: bool,  # noqa: FBT001
) -> None:
    answers = [FILES] if refresh else []
    await archived.archive(FILES)

    for _ in range(2):
        result = await archived.archive(*answers, refresh=refresh, event_at=CAPTURED)

        manifest = await archived.manifest()
        assert (result.outcome, len(manifest.documents)) == (Outcome.UNCHANGED, 2)
        assert (manifest.event_at, manifest.revision) == ("2020-02-28T12:00:00.000Z", 2)


async def test_the_marker_of_an_erasure_is_unchanged_when_the_time_of_a_capture_arrives(archived: Archive) -> None:
    await archived.archive(FILES)
    await archived.erase()
    marker = await archived.manifest()

    await archived.archive(event_at=CAPTURED)

    assert await archived.manifest() == marker
