import pytest

from scripts.simulator import stats
from scripts.simulator.rate import SimulatedLimit
from scripts.simulator.stats import SimulatorStats


def test_a_snapshot_has_all_counters() -> None:
    counted = SimulatorStats()
    for number, moment in enumerate((0.0, 0.1, 0.2, 5.0)):
        counted.count_request(f"id {number % 2}", moment)
    counted.count_record(5.1)
    counted.count_granted(0.0)
    counted.count_granted(0.2)
    counted.count_refused(SimulatedLimit.RATE)
    counted.count_refused(SimulatedLimit.QUOTA)
    counted.count_status(200)
    counted.count_status(429)
    counted.count_status(200)
    counted.count_redirect()
    assert counted.snapshot() == stats.StatsSnapshot(
        requests=5,
        granted=2,
        refused_by_rate=1,
        refused_by_quota=1,
        records=1,
        redirects_followed=1,
        worst_second=3,
        worst_second_granted=2,
        by_status={200: 2, 429: 1},
        by_evaluation={"id 0": 2, "id 1": 2},
    )


def test_a_snapshot_can_be_limited_to_one_evaluation() -> None:
    counted = SimulatorStats()
    counted.count_request("one", 0)
    assert counted.snapshot("one").by_evaluation == {"one": 1}
    assert counted.snapshot("never requested").by_evaluation == {"never requested": 0}


def test_the_number_of_counted_evaluations_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stats, "_MOST_EVALUATIONS", 2)
    counted = SimulatorStats()
    for eval_id in ("a", "b", "c", "a"):
        counted.count_request(eval_id, 0)
    assert counted.snapshot().by_evaluation == {"a": 2, "b": 1}
    assert counted.snapshot().requests == 4


def test_a_snapshot_does_not_change_with_later_requests() -> None:
    counted = SimulatorStats()
    before = counted.snapshot()
    counted.count_request("one", 0)
    counted.count_status(200)
    assert before.requests == 0
    assert before.by_status == {}
    assert before.by_evaluation == {}
