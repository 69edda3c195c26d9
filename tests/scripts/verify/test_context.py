from datetime import UTC, datetime

from scripts.verify.context import Selection, VerifyProgress
from tests.archives import eval_ids

IDS = eval_ids(2_000)


def test_a_sample_is_stable_and_about_as_large_as_its_share() -> None:
    some = [eval_id for eval_id in IDS if Selection(share=0.05).has(eval_id)]
    assert some == [eval_id for eval_id in IDS if Selection(share=0.05).has(eval_id)]
    assert 60 < len(some) < 140
    assert set(some) < {eval_id for eval_id in IDS if Selection(share=0.5).has(eval_id)}
    assert all(Selection().has(eval_id) for eval_id in IDS)


def test_a_since_date_starts_at_its_midnight() -> None:
    selection = Selection(since=datetime(2026, 11, 1, tzinfo=UTC))
    assert selection.is_recent("2026-11-01T00:00:00.000Z")
    assert not selection.is_recent("2026-10-31T23:59:59.999Z")


def test_the_summary_names_the_counts_that_are_not_zero() -> None:
    assert VerifyProgress(1_000, 3_000, 7_000_000).sentence() == "1,000 evaluations, 3,000 objects, 7 MB read back"
    assert VerifyProgress(quarantined=2, runs=1).sentence().endswith("; 2 in quarantine; 1 run list")
