"""An application disposes only of due documents, and its certificates are correct even if it is interrupted."""

import asyncio
import itertools
import json
import shutil
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from scripts.erase.stock import NotRemoved, ObjectVersion, ObjectVersions, VersionLock
from scripts.erase.traces import RedisRecords
from scripts.erase.versions import open_versions
from scripts.retention.assessment import DocumentState
from tasks.ledger.ledger import Ledger
from tasks.model.evaluation import Evaluation
from tasks.model.job import EnqueueOptions, Queue, Trigger
from tasks.model.outcome import ManifestOutcome
from tasks.storage.bucket import ObjectAttributes
from tasks.storage.local_bucket import LocalBucket
from tasks.storage.manifest import Manifest
from tasks.storage.revision import amend
from tests.archives import eval_ids, fill
from tests.scripts.erase.test_erasure import CrashingWrapper, SimulatedCrash
from tests.scripts.retention.disposals import RetainedArchive, at, copy_selfie_as
from worker.config.settings import Settings

PLAIN, REVISED, _, TOMBSTONE = eval_ids(4)
BEFORE, DUE = "2029-11-23", "2029-11-24"
"""The selfies of the archive were archived on 2026-11-23 and are kept for three years."""


@pytest.fixture
async def archive(tmp_path: Path) -> RetainedArchive:
    bucket = LocalBucket(tmp_path / "archive")
    await fill(bucket, eval_ids(4), size=100)
    return RetainedArchive(Settings(archive_url=(tmp_path / "archive").as_uri()), bucket)


def folder(archive: RetainedArchive) -> Path:
    return Path(archive.settings.archive_url.removeprefix("file://"))


def files(archive: RetainedArchive, kind: str) -> set[str]:
    return {path.stem for path in folder(archive).glob(f"sandbox/*/{kind}/*")}


async def test_no_document_is_disposed_of_before_its_due_day(archive: RetainedArchive) -> None:
    before = files(archive, "selfie")

    result = await archive.dispose(BEFORE)

    assert result.documents == 0
    assert files(archive, "selfie") == before
    assert await archive.certificates() == {}


async def test_due_documents_are_listed_as_disposed_removed_and_certified(archive: RetainedArchive) -> None:
    selfies, fronts = files(archive, "selfie"), files(archive, "document_front")
    plan, _ = await archive.plan(DUE)

    result = await archive.apply(plan, DUE)

    assert files(archive, "selfie") == set()
    assert files(archive, "document_front") == fronts, "their clock has not started"
    ((key, certificate),) = (await archive.certificates()).items()
    assert {each["sha256"] for each in certificate["documents"]} == selfies
    assert (certificate["plan"], certificate["rule"], certificate["clock"]) == (plan.sha256, "selfies", "archived")
    assert (certificate["by"], certificate["host"], certificate["evaluations"]) == ("records", "a-host", 3)
    assert certificate["bytes"] == sum(each["size"] for each in certificate["documents"]) == result.bytes
    for eval_id in (PLAIN, REVISED):
        manifest = await archive.manifest(eval_id)
        assert manifest.disposed
        assert {each.receipt for each in manifest.disposed} == {key}
        assert {each.disposed_at for each in manifest.disposed} == {f"{DUE}T12:00:00.000Z"}
        assert "selfie" not in {each.kind for each in manifest.documents}


async def test_an_evaluation_whose_documents_are_all_disposed_of_is_disposed(archive: RetainedArchive) -> None:
    archive.schedule["rule"] = [{"name": "all", "keep_for": "1d", "clock": "archived"}]

    await archive.dispose(DUE)

    assert (await archive.manifest(PLAIN)).manifest_outcome is ManifestOutcome.DISPOSED
    assert (await archive.manifest(TOMBSTONE)).manifest_outcome is ManifestOutcome.NO_DOCUMENTS


async def test_a_second_application_of_a_plan_changes_nothing(archive: RetainedArchive) -> None:
    plan, _ = await archive.plan(DUE)
    first = await archive.apply(plan, DUE)
    manifest, certificates = await archive.manifest(PLAIN), await archive.certificates()

    again = await archive.apply(plan, DUE)

    assert (again.documents, again.certificates) == (first.documents, first.certificates)
    assert await archive.manifest(PLAIN) == manifest
    assert await archive.certificates() == certificates


async def test_a_planned_document_is_kept_when_a_corrected_event_makes_it_due_later(
    archive: RetainedArchive,
) -> None:
    for eval_id in (PLAIN, REVISED):
        await archive.report(eval_id, "relationship_ended", "2020-01-01", "2026-11-24")
    plan, _ = await archive.plan("2027-01-01")
    assert plan.totals.evaluations == 2
    await archive.report(PLAIN, "relationship_ended", "2026-12-01", "2027-01-02")

    result = await archive.apply(plan, "2027-01-03")

    assert result.held_back == {DocumentState.KEPT: 1}
    assert [each.rule for each in (await archive.manifest(REVISED)).disposed] == ["fronts"] * 3
    assert (await archive.manifest(PLAIN)).disposed == ()


async def test_a_document_that_the_plan_does_not_name_is_kept(archive: RetainedArchive) -> None:
    plan, _ = await archive.plan("2027-01-01", until=DUE)
    await archive.report(PLAIN, "relationship_ended", "2020-01-01", "2026-11-24")

    await archive.apply(plan, DUE)

    assert [each.kind for each in (await archive.manifest(PLAIN)).disposed] == ["selfie"]


async def test_documents_are_kept_when_a_matter_is_added_just_before_the_manifest_is_replaced(
    archive: RetainedArchive,
) -> None:
    plan, _ = await archive.plan(DUE)
    root, selfies = folder(archive), files(archive, "selfie")

    class HoldingBucket(LocalBucket):
        """Put an evaluation under a legal hold just before its manifest is replaced."""

        async def replace(self, key: str, data: bytes, attributes: ObjectAttributes, etag: str | None) -> None:
            evaluation = Evaluation(key.split("/")[1], "sandbox")
            await amend(archive.bucket, evaluation, add_matter)
            await super().replace(key, data, attributes, etag)

    archive.wrapped = lambda real: replace(real, bucket=HoldingBucket(root))

    result = await archive.apply(plan, DUE)

    assert result.held_back == {DocumentState.HOLD: 5}
    assert files(archive, "selfie") == selfies
    assert (await archive.manifest(PLAIN)).disposed == (await archive.manifest(REVISED)).disposed == ()
    assert (await archive.apply(plan, DUE)).held_back == {DocumentState.HOLD: 5}


def add_matter(manifest: Manifest) -> Manifest | None:
    return None if manifest.matters else manifest.model_copy(update={"matters": ("lawsuit",)})


async def test_a_document_that_a_worker_stores_again_meanwhile_is_removed_by_the_second_sweep(
    archive: RetainedArchive,
) -> None:
    plan, _ = await archive.plan(DUE)
    (selfie,) = [each for each in (await archive.manifest(PLAIN)).documents if each.kind == "selfie"]

    async def store_again() -> None:
        assert await archive.bucket.read(selfie.key) is None
        await archive.bucket.create(selfie.key, b"late", ObjectAttributes("image/jpeg"))

    await archive.apply(plan, DUE, store_again)

    assert await archive.bucket.read(selfie.key) is None


async def test_no_certificate_lists_documents_that_a_worker_may_still_store(
    archive: RetainedArchive, redis: Redis
) -> None:
    ledger, plan = Ledger(redis), (await archive.plan(DUE))[0]
    archive.records = RedisRecords(ledger, 0.0)
    (selfie,) = [each for each in (await archive.manifest(PLAIN)).documents if each.kind == "selfie"]
    await ledger.accept([PLAIN], EnqueueOptions(Queue.LIVE, "default", Trigger("enqueue")))
    (job,) = await ledger.lease([PLAIN], token="a-token")  # not a secret

    first = await archive.apply(plan, DUE)
    # This worker read the manifest before the disposal.
    await archive.bucket.create(selfie.key, b"late", ObjectAttributes("image/jpeg"))
    await ledger.release(job)

    assert first.failed == {PLAIN}
    assert PLAIN not in json.dumps(await archive.certificates())
    second = await archive.apply(plan, DUE)
    assert (second.failed, await archive.bucket.read(selfie.key)) == (set(), None)
    listed = [each["sha256"] for found in (await archive.certificates()).values() for each in found["documents"]]
    assert sorted(listed) == sorted({*listed})
    assert selfie.sha256 in listed


async def test_documents_with_the_same_bytes_are_disposed_of_together_or_not_at_all(archive: RetainedArchive) -> None:
    await amend(archive.bucket, Evaluation(PLAIN, "sandbox"), copy_selfie_as("attachment"))

    await archive.dispose(DUE)

    assert (await archive.manifest(PLAIN)).disposed == ()
    assert (await archive.manifest(REVISED)).disposed


async def test_a_dry_run_counts_and_changes_nothing(archive: RetainedArchive) -> None:
    plan, _ = await archive.plan(DUE)
    before = await archive.manifest(PLAIN)

    result = await archive.apply(plan, DUE, dry_run=True)

    assert result.documents == plan.totals.documents > 0
    assert await archive.manifest(PLAIN) == before
    assert await archive.certificates() == {}


class Interrupted(RetainedArchive):
    """An archive whose applications stop at the nth call of a store."""

    def interrupt_at(self, call: int) -> "itertools.count[int]":
        countdown = itertools.count(-call)
        self.wrapped = lambda real: replace(
            real, bucket=CrashingWrapper(real.bucket, countdown), versions=CrashingWrapper(real.versions, countdown)
        )
        return countdown


@pytest.mark.parametrize("is_unattended", [False, True], ids=["the same command", "unattended"])
async def test_an_application_that_is_killed_at_any_call_is_completed_by_the_next_one(
    tmp_path: Path, *, is_unattended: bool
) -> None:
    ids = eval_ids(2)[: 1 if is_unattended else 2]
    original = LocalBucket(tmp_path / "original")
    await fill(original, ids, size=10)
    selfies = files(RetainedArchive(Settings(archive_url=(tmp_path / "original").as_uri()), original), "selfie")
    for call in itertools.count():
        root = tmp_path / str(call)
        shutil.copytree(tmp_path / "original", root)
        archive = Interrupted(Settings(archive_url=root.as_uri()), LocalBucket(root))
        plan, _ = await archive.plan(DUE)
        archive.interrupt_at(call)
        try:
            await archive.apply(plan, DUE)
        except SimulatedCrash:
            await check_consistency(archive, ids)
        else:
            break
        archive.wrapped = lambda real: real

        await (archive.dispose("2029-11-25") if is_unattended else archive.apply(plan, DUE))

        await check_certificates(archive, ids, selfies)
        assert (await archive.plan("2029-11-26"))[1].unfinished == 0
        shutil.rmtree(root)
    assert call > 10


async def check_consistency(archive: RetainedArchive, ids: Sequence[str]) -> None:
    """Check that every held document exists, and that no certified document does."""
    for eval_id in ids:
        manifest = await archive.manifest(eval_id)
        for each in manifest.documents:
            assert await archive.bucket.digest(each.key) == each.sha256
    for certificate in (await archive.certificates()).values():
        assert {each["sha256"] for each in certificate["documents"]}.isdisjoint(files(archive, "selfie"))


async def check_certificates(archive: RetainedArchive, ids: Sequence[str], selfies: set[str]) -> None:
    """Check that all selfies are gone, and that the certificates list each one once, in line with the manifests."""
    assert files(archive, "selfie") == set()
    certificates = await archive.certificates()
    listed = {key: sorted(each["sha256"] for each in found["documents"]) for key, found in certificates.items()}
    named = defaultdict[str, list[str]](list)
    for eval_id in ids:
        for each in (await archive.manifest(eval_id)).disposed:
            assert each.receipt
            named[each.receipt].append(each.sha256)
    assert listed == {key: sorted(each) for key, each in named.items()}
    assert sorted(itertools.chain(*listed.values())) == sorted(selfies)
    assert sum(each["evaluations"] for each in certificates.values()) == len(ids)


async def test_two_applications_at_once_write_the_same_certificate(archive: RetainedArchive) -> None:
    selfies = files(archive, "selfie")
    plan, _ = await archive.plan(DUE)
    other, _ = await archive.plan(DUE)

    await asyncio.gather(archive.apply(plan, DUE), archive.apply(other, DUE))

    ((_, certificate),) = (await archive.certificates()).items()
    assert sorted(each["sha256"] for each in certificate["documents"]) == sorted(selfies)
    assert certificate["evaluations"] == 3
    assert files(archive, "selfie") == set()


async def test_a_certificate_that_another_machine_wrote_too_early_is_completed(
    archive: RetainedArchive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scripts.retention.application._AT_ONCE", 1)
    selfies = files(archive, "selfie")
    (plan, _), (same, _) = await archive.plan(DUE), await archive.plan(DUE)
    assert plan.sha256 == same.sha256
    interrupted = Interrupted(archive.settings, archive.bucket)
    interrupted.interrupt_at(12)
    with pytest.raises(SimulatedCrash):
        await interrupted.apply(plan, DUE)
    # The clock of another machine is behind. Nothing is due there, and it only completes the interrupted application.
    early = await archive.dispose(BEFORE)
    assert 0 < early.documents < len(selfies)

    async def stop() -> None:
        raise SimulatedCrash

    with pytest.raises(SimulatedCrash):
        await archive.apply(same, DUE, stop)
    ((_, certificate),) = (await archive.certificates()).items()
    assert len(certificate["documents"]) == early.documents

    await archive.dispose("2029-11-25")

    ((_, certificate),) = (await archive.certificates()).items()
    assert sorted(each["sha256"] for each in certificate["documents"]) == sorted(selfies)
    assert certificate["evaluations"] == 3


@dataclass
class LockedFiles:
    """Files with a lock for some keys."""

    files: ObjectVersions
    locks: dict[str, VersionLock]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.files, name)

    def lock_of(self, item: ObjectVersion) -> VersionLock | None:
        return self.locks.get(item.key)

    def remove(self, items: Sequence[ObjectVersion], *, bypass_governance: bool) -> None:
        assert not self.locks.keys() & {item.key for item in items}
        assert not bypass_governance
        self.files.remove(items, bypass_governance=bypass_governance)


@pytest.mark.parametrize(
    ("lock", "state"),
    [
        (VersionLock("COMPLIANCE", at("2030-01-01")), DocumentState.COMPLIANCE_LOCK),
        (VersionLock("GOVERNANCE", at("2030-01-01")), DocumentState.GOVERNANCE_LOCK),
        (VersionLock("HOLD"), DocumentState.HOLD),
    ],
)
async def test_a_locked_document_is_held_back_until_its_lock_has_ended(
    archive: RetainedArchive, lock: VersionLock, state: DocumentState
) -> None:
    (selfie,) = [each for each in (await archive.manifest(PLAIN)).documents if each.kind == "selfie"]
    locks = {selfie.key: lock}
    archive.wrapped = lambda real: replace(real, versions=LockedFiles(real.versions, locks))
    plan, _ = await archive.plan(DUE)

    result = await archive.apply(plan, DUE)

    assert (result.documents, result.held_back, result.failed) == (4, {state: 1}, set())
    assert (await archive.manifest(PLAIN)).disposed == ()
    locks.clear()
    assert (await archive.apply(plan, "2030-01-02")).documents == 5
    ((_, certificate),) = (await archive.certificates()).items()
    assert (len(certificate["documents"]), certificate["evaluations"]) == (5, 3)


async def test_a_document_that_a_worker_locks_meanwhile_gets_its_own_certificate_later(
    archive: RetainedArchive,
) -> None:
    (selfie,) = [each for each in (await archive.manifest(PLAIN)).documents if each.kind == "selfie"]
    locks: dict[str, VersionLock] = {}
    archive.wrapped = lambda real: replace(real, versions=LockedFiles(real.versions, locks))
    plan, _ = await archive.plan(DUE)

    async def store_again_with_a_lock() -> None:
        await archive.bucket.create(selfie.key, b"late", ObjectAttributes("image/jpeg"))
        locks[selfie.key] = VersionLock("COMPLIANCE", at("2030-01-01"))

    first = await archive.apply(plan, DUE, store_again_with_a_lock)

    assert (first.documents, first.kept, first.failed) == (4, 1, set())
    ((key, certificate),) = (await archive.certificates()).items()
    assert selfie.sha256 not in {each["sha256"] for each in certificate["documents"]}
    revision = (await archive.manifest(PLAIN)).revision
    assert (await archive.plan("2029-12-24"))[1].unfinished == 1
    assert (await archive.dispose("2029-12-24")).kept == 1
    assert (await archive.manifest(PLAIN)).revision == revision, "it already waits for its own certificate"

    locks.clear()
    last = await archive.dispose("2030-01-02")

    assert (last.documents, last.kept) == (1, 0)
    certificates = await archive.certificates()
    (own,) = certificates.keys() - {key}
    assert [each["sha256"] for each in certificates[own]["documents"]] == [selfie.sha256]
    assert await archive.bucket.read(selfie.key) is None
    assert (await archive.plan("2030-01-03"))[1].unfinished == 0


async def test_documents_left_by_an_interrupted_application_stay_while_under_a_matter(
    archive: RetainedArchive,
) -> None:
    plan, _ = await archive.plan(DUE)
    versions = open_versions(archive.settings)

    class CutOffFiles(LockedFiles):
        def remove(self, *_: Any, **__: Any) -> None:
            raise SimulatedCrash

    archive.wrapped = lambda real: replace(real, versions=CutOffFiles(versions, {}))
    with pytest.raises(SimulatedCrash):
        await archive.apply(plan, DUE)
    archive.wrapped = lambda real: real
    selfies = files(archive, "selfie")
    (listed,) = [each for each in eval_ids(3) if (await archive.manifest(each)).disposed][:1]
    hashes = {each.sha256 for each in (await archive.manifest(listed)).disposed}
    assert hashes <= selfies
    await amend(archive.bucket, Evaluation(listed, "sandbox"), add_matter)

    for apply in (lambda: archive.apply(plan, DUE), lambda: archive.dispose("2029-11-25")):
        assert (await apply()).kept == len(hashes)
        assert files(archive, "selfie") == hashes

    await amend(
        archive.bucket, Evaluation(listed, "sandbox"), lambda manifest: manifest.model_copy(update={"matters": ()})
    )
    assert (await archive.dispose("2029-11-26")).kept == 0
    assert files(archive, "selfie") == set()
    certificates = await archive.certificates()
    assert {each["sha256"] for found in certificates.values() for each in found["documents"]} == selfies


async def test_a_damaged_manifest_does_not_stop_other_disposals(
    archive: RetainedArchive, capsys: pytest.CaptureFixture[str]
) -> None:
    plan, _ = await archive.plan(DUE)
    (folder(archive) / Evaluation(PLAIN, "sandbox").manifest_key).write_bytes(b"{}")

    result = await archive.apply(plan, DUE)

    assert (result.documents, result.failed) == (4, {PLAIN})
    assert PLAIN in capsys.readouterr().err


async def test_an_object_that_cannot_be_removed_does_not_stop_other_disposals(
    archive: RetainedArchive, undeletable: set[str], capsys: pytest.CaptureFixture[str]
) -> None:
    plan, _ = await archive.plan(DUE)
    selfies = files(archive, "selfie")
    undeletable.add(PLAIN)

    result = await archive.apply(plan, DUE)

    assert (result.documents, result.failed) == (4, {PLAIN})
    assert f"{PLAIN}: the folder of the archive cannot be changed" in capsys.readouterr().err
    (left,) = files(archive, "selfie")
    assert sorted(await certified_hashes(archive)) == sorted(selfies - {left})

    undeletable.clear()
    await archive.dispose("2029-11-25")
    assert files(archive, "selfie") == set()
    assert sorted(await certified_hashes(archive)) == sorted(selfies)


async def test_an_application_ends_when_too_many_objects_cannot_be_removed(
    archive: RetainedArchive, undeletable: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scripts.retention.application._MOST_REFUSED", 1)
    plan, _ = await archive.plan(DUE)
    undeletable |= {PLAIN, REVISED}
    with pytest.raises(NotRemoved):
        await archive.apply(plan, DUE)
    assert await certified_hashes(archive) == []


async def share_selfie(archive: RetainedArchive) -> str:
    """Make the selfie of one evaluation the only document of another one, and return its hash."""
    manifest = await archive.manifest(PLAIN)
    (selfie,) = [each for each in manifest.documents if each.kind == "selfie"]
    shared = selfie.model_copy(update={"key": selfie.key.replace(PLAIN, REVISED), "archived_at": manifest.archived_at})
    evaluation = Evaluation(REVISED, "sandbox")
    await amend(archive.bucket, evaluation, lambda manifest: manifest.model_copy(update={"documents": (shared,)}))
    return selfie.sha256


async def certified_hashes(archive: RetainedArchive) -> list[str]:
    return [each["sha256"] for found in (await archive.certificates()).values() for each in found["documents"]]


async def stop() -> None:
    raise SimulatedCrash


async def test_a_certificate_that_is_completed_in_parts_lists_the_same_bytes_once_for_each_evaluation(
    archive: RetainedArchive, monkeypatch: pytest.MonkeyPatch
) -> None:
    sha256 = await share_selfie(archive)
    plan, _ = await archive.plan(DUE)
    with pytest.raises(SimulatedCrash):
        await archive.apply(plan, DUE, stop)
    monkeypatch.setattr("scripts.retention.application.PART", 1)

    await archive.dispose("2029-11-25")

    assert (await certified_hashes(archive)).count(sha256) == 2
    ((_, certificate),) = (await archive.certificates()).items()
    assert certificate["evaluations"] == len([each for each in eval_ids(4) if (await archive.manifest(each)).disposed])
    assert (await archive.plan("2029-11-26"))[1].unfinished == 0


@pytest.mark.parametrize("later", ["2029-11-26", "2029-12-24"])
@pytest.mark.parametrize("has_same_bytes", [False, True])
async def test_an_interrupted_second_application_of_a_plan_is_completed_by_the_daily_one(
    archive: RetainedArchive, later: str, *, has_same_bytes: bool
) -> None:
    if has_same_bytes:
        await share_selfie(archive)
    plan, _ = await archive.plan(DUE)
    held = Evaluation(PLAIN, "sandbox")
    await amend(archive.bucket, held, add_matter)
    await archive.apply(plan, DUE)
    before = await certified_hashes(archive)
    await amend(archive.bucket, held, lambda manifest: manifest.model_copy(update={"matters": ()}))
    with pytest.raises(SimulatedCrash):
        await archive.apply(plan, later, stop)
    (selfie,) = (await archive.manifest(PLAIN)).disposed
    assert (await archive.plan(later))[1].unfinished == 1

    await archive.dispose(later)

    assert sorted(await certified_hashes(archive)) == sorted([*before, selfie.sha256])
    assert (await archive.plan(later))[1].unfinished == 0
