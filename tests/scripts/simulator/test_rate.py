import pytest

from scripts.simulator.options import RateHeaderStyle, SimulatorOptions
from scripts.simulator.rate import SimulatedLimit, SimulatedLimiter, SlidingSecond, retry_after


def granted(limiter: SimulatedLimiter, options: SimulatorOptions, *moments: float) -> list[bool]:
    return [limiter.admit(options, moment) is None for moment in moments]


def test_the_rate_is_enforced_in_every_sliding_second() -> None:
    moments = {0.75: True, 0.875: True, 1.25: False, 1.5: False, 1.75: True, 1.8: False, 1.875: True}
    assert granted(SimulatedLimiter(), SimulatorOptions(rate=2), *moments) == list(moments.values())


def test_a_refused_request_is_not_counted_against_the_rate() -> None:
    limiter, options = SimulatedLimiter(), SimulatorOptions(rate=1)
    assert granted(limiter, options, 0, 0.5, 0.9, 1.0) == [True, False, False, True]


def test_a_refusal_has_the_wait_until_the_next_permit() -> None:
    limiter, options = SimulatedLimiter(), SimulatorOptions(rate=1)
    limiter.admit(options, 5.0)
    refusal = limiter.admit(options, 5.25)
    assert refusal
    assert refusal.limit is SimulatedLimit.RATE
    assert refusal.wait == pytest.approx(0.75)
    assert limiter.admit(options, 5.25 + refusal.wait) is None


def test_a_rate_of_none_is_unlimited_and_a_rate_of_0_grants_nothing() -> None:
    assert all(granted(SimulatedLimiter(), SimulatorOptions(rate=None), *[0.0] * 100))
    assert not any(granted(SimulatedLimiter(), SimulatorOptions(rate=0), 0, 10, 20))


def test_a_quota_is_renewed_after_its_day() -> None:
    limiter, options = SimulatedLimiter(), SimulatorOptions(quota=2, day_seconds=60)
    assert granted(limiter, options, 100, 110, 120, 159.9, 160, 161, 162) == [
        True, True, False, False, True, True, False,
    ]  # fmt: skip
    refusal = limiter.admit(options, 170)
    assert refusal
    assert refusal.limit is SimulatedLimit.QUOTA
    assert refusal.wait == pytest.approx(50)


@pytest.mark.parametrize(("style", "mark"), [(RateHeaderStyle.STANDARD, ""), (RateHeaderStyle.X, "X-")])
def test_headers_have_the_rate_in_the_chosen_style(style: RateHeaderStyle, mark: str) -> None:
    limiter, options = SimulatedLimiter(), SimulatorOptions(rate=3, header_style=style)
    limiter.admit(options, 0)
    assert limiter.headers(options, 0.2) == {
        f"{mark}RateLimit-Limit": "3",
        f"{mark}RateLimit-Remaining": "2",
        f"{mark}RateLimit-Reset": "1",
    }
    assert retry_after(style, 0.2) == {f"{mark}Retry-After": "1"}


def test_riskos_headers_have_the_window_and_the_day_if_there_is_a_quota() -> None:
    limiter, options = SimulatedLimiter(), SimulatorOptions(rate=10)
    limiter.admit(options, 0)
    window = {"X-Ratelimit-Limit-Window": "10", "X-Ratelimit-Remaining-Window": "9"}
    assert limiter.headers(options, 0.2) == window
    day = {"X-Ratelimit-Limit-Day": "1000", "X-Ratelimit-Remaining-Day": "999"}
    assert limiter.headers(options.changed({"quota": 1000}), 0.2) == window | day
    assert limiter.headers(options.changed({"rate": None, "quota": 1000}), 0.2) == day
    assert retry_after(RateHeaderStyle.RISKOS, 1) == {}


def test_headers_are_empty_with_the_style_none() -> None:
    options = SimulatorOptions(rate=3, header_style=RateHeaderStyle.NONE)
    assert SimulatedLimiter().headers(options, 0) == retry_after(RateHeaderStyle.NONE, 1) == {}


def test_a_sliding_second_keeps_its_maximum() -> None:
    second = SlidingSecond()
    for moment in (0.0, 0.6, 0.7, 1.55, 1.65, 5.0):
        second.add(moment)
    assert second.worst == 3
    assert second.total == 6
    assert second.count(5.5) == 1
    assert second.count(6.0) == 0
