"""A plan counts the documents that are due until a day and those that wait, and lists only the due ones."""

from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from scripts.erase.stock import VersionLock
from scripts.retention import planner, survey
from scripts.retention.assessment import DocumentState
from scripts.retention.plan_counts import PlanCounts
from scripts.retention.planner import first_free_day
from tasks.model.evaluation import Evaluation
from tasks.retention.event import EVENTS
from tasks.storage.bucket import ObjectAttributes
from tasks.storage.local_bucket import LocalBucket
from tasks.storage.revision import amend
from tests.archives import eval_ids, fill
from tests.scripts.retention.disposals import RetainedArchive, copy_selfie_as
from worker.config.settings import Settings

PLAIN, REVISED, THIRD, TOMBSTONE = eval_ids(4)
DUE = "2029-11-24"


@pytest.fixture
async def archive(tmp_path: Path) -> RetainedArchive:
    bucket = LocalBucket(tmp_path / "archive")
    await fill(bucket, eval_ids(4), size=100)
    return RetainedArchive(Settings(archive_url=(tmp_path / "archive").as_uri()), bucket)


def count_documents(counts: PlanCounts) -> dict[tuple[str, str, str], int]:
    return {(row.state.value, row.kind, row.month): row.documents for row in counts.rows()}


async def test_a_plan_counts_documents_by_rule_kind_and_month(archive: RetainedArchive) -> None:
    await archive.report(PLAIN, "relationship_ended", "2022-03-30", "2026-11-24")

    plan, counts = await archive.plan("2026-12-01", until=DUE)

    assert count_documents(counts) == {
        ("due", "document_front", "2027-03"): 1,
        ("due", "selfie", "2029-11"): 5,
        ("clock", "document_front", ""): 4,
        ("kept", "document_back", ""): 5,
    }
    assert (counts.evaluations, counts.by_state[DocumentState.DUE]) == (4, 3)
    assert (plan.totals.documents, plan.totals.evaluations) == (6, 3)
    assert plan.totals.bytes == counts.total(DocumentState.DUE)[1] > 0
    assert plan.header.until == date.fromisoformat(DUE)
    first, *_ = [each for each in plan.evaluations() if each.eval_id == PLAIN]
    assert {(each.kind, each.rule, each.due) for each in first.documents} == {
        ("document_front", "fronts", date(2027, 3, 31)),
        ("selfie", "selfies", date(2029, 11, 24)),
    }


async def test_overdue_documents_are_counted_in_the_current_month(archive: RetainedArchive) -> None:
    counts = (await archive.plan("2035-07-01"))[1]

    assert count_documents(counts)["due", "selfie", "2035-07"] == 5


async def test_documents_wait_for_grace_review_and_matters(archive: RetainedArchive) -> None:
    archive.schedule["rule"] = [
        {"name": "fronts", "kind": "document_front", "keep_for": "1d", "clock": "closed"},
        {"name": "backs", "kind": "document_back", "keep_for": "1d", "clock": "archived", "then": "review"},
        {"name": "selfies", "kind": "selfie", "keep_for": "1d", "clock": "archived"},
    ]
    await archive.report(PLAIN, "closed", "2026-01-01", "2026-11-24")
    hold = {"matters": ("lawsuit",)}
    await amend(archive.bucket, Evaluation(THIRD, "sandbox"), lambda manifest: manifest.model_copy(update=hold))

    plan, counts = await archive.plan("2026-11-30")

    assert count_documents(counts) == {
        ("due", "selfie", "2026-11"): 4,
        ("hold", "selfie", ""): 1,
        ("review", "document_back", ""): 5,
        ("grace", "document_front", ""): 1,
        ("clock", "document_front", ""): 4,
    }
    assert plan.totals.documents == 4
    sentences = " ".join(counts.sentences())
    for text in ("a legal hold", "a review", "the grace", "their clock"):
        assert text in sentences


async def test_a_lock_that_ends_after_the_plan_holds_documents_back(
    archive: RetainedArchive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`test_disposal.py` looks up locks in S3."""
    found = {
        PLAIN: VersionLock("COMPLIANCE", datetime(2030, 5, 1, 10, tzinfo=UTC)),
        REVISED: VersionLock("GOVERNANCE", datetime(2030, 6, 1, tzinfo=UTC)),
        THIRD: VersionLock("COMPLIANCE", datetime(2029, 12, 24, tzinfo=UTC)),
    }
    monkeypatch.setattr(survey, "find_retention_reader", lambda _: lambda key: found.get(key.split("/")[1]))

    plan, counts = await archive.plan("2026-12-01", until="2029-12-24")

    assert count_documents(counts) == {
        ("due", "selfie", "2029-12"): 1,
        ("compliance_lock", "selfie", "2030-05"): 1,
        ("governance_lock", "selfie", "2030-06"): 3,
        ("clock", "document_front", ""): 5,
        ("kept", "document_back", ""): 5,
    }
    assert [each.eval_id for each in plan.evaluations()] == [THIRD]


async def test_a_lock_holds_back_all_documents_with_the_same_bytes(
    archive: RetainedArchive, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive.schedule["rule"] = [{"name": "all", "kind": ["selfie", "other"], "keep_for": "1d", "clock": "archived"}]
    for eval_id in (PLAIN, THIRD):
        await amend(archive.bucket, Evaluation(eval_id, "sandbox"), copy_selfie_as("other"))
    found = {
        (PLAIN, "selfie"): VersionLock("COMPLIANCE", datetime(2030, 5, 1, tzinfo=UTC)),
        (THIRD, "other"): VersionLock("COMPLIANCE", datetime(2027, 2, 1, tzinfo=UTC)),
    }
    monkeypatch.setattr(survey, "find_retention_reader", lambda _: lambda key: found.get(tuple(key.split("/")[1:3])))

    plan, counts = await archive.plan("2026-12-01", until="2027-03-01")

    assert count_documents(counts) == {
        ("due", "selfie", "2026-12"): 3,
        ("due", "selfie", "2027-02"): 1,
        ("due", "other", "2027-02"): 1,
        ("compliance_lock", "selfie", "2030-05"): 1,
        ("compliance_lock", "other", "2030-05"): 1,
        ("kept", "document_front", ""): 5,
        ("kept", "document_back", ""): 5,
    }
    assert PLAIN not in {each.eval_id for each in plan.evaluations()}


async def test_locks_are_looked_up_for_a_bounded_number_of_due_documents(
    archive: RetainedArchive, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_up: list[str] = []
    monkeypatch.setattr(planner, "MOST_LOCKS", 2)
    monkeypatch.setattr(survey, "find_retention_reader", lambda _: looked_up.append)

    counts = (await archive.plan(DUE))[1]

    assert (len(looked_up), counts.unchecked) == (2, 3)
    assert {key.split("/")[2] for key in looked_up} == {"selfie"}
    assert "not looked up" in " ".join(counts.problems())


@pytest.mark.parametrize(
    ("until", "day"),
    [
        (datetime(2030, 1, 1, tzinfo=UTC), date(2030, 1, 1)),
        (datetime(2030, 1, 1, 0, 0, 1, tzinfo=UTC), date(2030, 1, 2)),
        (datetime(2030, 1, 1, 23, 59, 59, tzinfo=UTC), date(2030, 1, 2)),
    ],
)
def test_a_document_is_free_on_the_first_day_wholly_after_its_lock(until: datetime, day: date) -> None:
    assert first_free_day(until) == day


async def test_documents_of_a_damaged_manifest_or_event_are_kept_and_counted(archive: RetainedArchive) -> None:
    labels = ObjectAttributes("application/json")
    await archive.bucket.create(f"{EVENTS}sandbox/{PLAIN}/x.json", b"{}", labels)
    found = await archive.bucket.read(Evaluation(REVISED, "sandbox").manifest_key)
    assert found
    await archive.bucket.replace(Evaluation(REVISED, "sandbox").manifest_key, b"{}", labels, found.etag)

    plan, counts = await archive.plan(DUE)

    assert (counts.damaged, counts.evaluations) == (2, 4)
    assert [each.eval_id for each in plan.evaluations()] == [THIRD]


async def test_unknown_keys_and_events_without_an_evaluation_are_ignored(archive: RetainedArchive) -> None:
    before = count_documents((await archive.plan(DUE))[1])
    labels = ObjectAttributes("application/json")
    for key in ("sandbox/manifest.json", "sandbox/0/manifest.json", f"sandbox/{PLAIN}/x/manifest.json"):
        await archive.bucket.create(key, b"{}", labels)
    for eval_id in ("0", "zzz", *eval_ids(30, seed=2)):
        await archive.bucket.create(f"{EVENTS}sandbox/{eval_id}/x.json", b"{}", labels)
    await archive.report(PLAIN, "other", "2020-01-01", "2026-11-24")

    counts = (await archive.plan(DUE))[1]

    assert (count_documents(counts), counts.damaged, counts.evaluations) == (before, 0, 4)


async def test_a_plan_of_one_environment_leaves_out_the_other(archive: RetainedArchive) -> None:
    other = await archive.survey(DUE, ["production"]).run(archive.bucket, date.fromisoformat(DUE))
    assert (other.evaluations, other.rows()) == (0, [])


async def test_bundles_in_quarantine_are_counted_as_kept_even_if_their_documents_are_disposed_of(
    tmp_path: Path,
) -> None:
    bucket = LocalBucket(tmp_path / "archive")
    await fill(bucket, eval_ids(7), size=10)
    archive = RetainedArchive(Settings(archive_url=(tmp_path / "archive").as_uri()), bucket)
    archive.schedule["rule"] = [{"name": "all", "keep_for": "3y", "clock": "archived"}]

    before = (await archive.plan("2029-11-23"))[1]
    await archive.dispose(DUE)
    after = (await archive.plan(DUE))[1]

    assert (before.in_quarantine, after.in_quarantine) == (1, 1)
    assert "1 bundle in quarantine, kept" in " ".join(after.sentences())
