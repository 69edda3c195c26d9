import pytest

from scripts.simulator.neighbour import Neighbour, NeighbourSnapshot
from scripts.simulator.options import SimulatorOptions
from scripts.simulator.rate import SimulatedLimiter


def send_until(neighbour: Neighbour, options: SimulatorOptions, until: float) -> NeighbourSnapshot:
    """Let a neighbour send from 0 s until a time; return its statistics."""
    due = 0.0
    while due < until:
        due = neighbour.send(options, due)
    return neighbour.snapshot(until)


def test_a_neighbour_sends_evenly_at_its_rate() -> None:
    found = send_until(Neighbour(SimulatedLimiter(), 4, 4, now=0.0), SimulatorOptions(rate=10), 10.0)
    assert (found.requests, found.refused_after, found.rates) == (40, [], [(4, 10.0)])


def test_a_neighbour_changes_its_rate_every_30_seconds_by_its_seed() -> None:
    first, again, other = (
        send_until(Neighbour(SimulatedLimiter(), 0, 9, seed=seed, now=0.0), SimulatorOptions(), 600.0)
        for seed in (1, 1, 2)
    )
    assert [seconds for _, seconds in first.rates] == [30.0] * 19 + [30.0]
    assert {rate for rate, _ in first.rates} <= set(range(10))
    assert len({rate for rate, _ in first.rates}) > 5
    assert first == again != other
    assert first.requests == pytest.approx(sum(rate * seconds for rate, seconds in first.rates), abs=20)


def test_a_neighbour_uses_the_same_window_and_day() -> None:
    limiter, options = SimulatedLimiter(), SimulatorOptions(rate=10, quota=100)
    send_until(Neighbour(limiter, 4, 4, now=0.0), options, 1.0)
    headers = limiter.headers(options, 1.0)
    assert headers["X-Ratelimit-Remaining-Window"] == "7"
    assert headers["X-Ratelimit-Remaining-Day"] == "96"


@pytest.mark.parametrize("rate", [3, 7, 9, 10])
def test_a_neighbour_is_not_refused_within_the_limit(rate: int) -> None:
    found = send_until(Neighbour(SimulatedLimiter(), rate, rate, now=0.0), SimulatorOptions(rate=rate), 29.0)
    assert found.refused_after == []


def test_a_neighbour_records_how_long_after_a_rate_change_it_was_refused() -> None:
    found = send_until(Neighbour(SimulatedLimiter(), 2, 2, now=0.0), SimulatorOptions(rate=1), 31.0)
    assert found.refused_after[0] == 0.5
    assert found.refused_after[-1] == 0.5, "its rate changed at 30 s"
    assert found.requests == 62
    assert len(found.refused_after) == 31


def test_requests_of_a_neighbour_are_counted_separately_when_the_quota_is_spent() -> None:
    found = send_until(Neighbour(SimulatedLimiter(), 2, 2, now=0.0), SimulatorOptions(rate=10, quota=5), 10.0)
    assert (found.requests, found.refused_by_quota, found.refused_after) == (20, 15, [])


def test_a_neighbour_sends_nothing_at_a_rate_of_0() -> None:
    found = send_until(Neighbour(SimulatedLimiter(), 0, 0, now=0.0), SimulatorOptions(rate=10), 60.0)
    assert (found.requests, found.rates) == (0, [(0, 30.0), (0, 30.0)])
