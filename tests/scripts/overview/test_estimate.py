import pytest

from scripts.overview.estimate import estimate_requests
from worker.config.settings import Settings


def test_a_backfill_is_estimated_at_its_share_of_the_rate() -> None:
    settings = Settings(environment="production", backfill_share=0.5)
    estimate = estimate_requests(3_600, settings, rate=2)
    assert (estimate.rate, estimate.per_day, estimate.seconds) == (1.0, None, 3_600)


def test_the_estimate_is_longer_when_the_quota_is_the_limit() -> None:
    settings = Settings(environment="production", daily_quota=1_000, live_reserve=0.1)
    estimate = estimate_requests(4_500, settings, rate=1_000)
    assert estimate.per_day == pytest.approx(900)
    assert estimate.seconds == pytest.approx(5 * 86_400)


def test_the_estimate_ignores_a_quota_that_is_not_used_up() -> None:
    settings = Settings(environment="production", daily_quota=1_000, backfill_share=1)
    assert estimate_requests(900, settings, rate=10).seconds == 90


@pytest.mark.parametrize(("measured", "seconds"), [(None, 100), (0.0, 100), (2.0, 500), (50.0, 100)])
def test_the_estimate_uses_the_measured_speed_when_it_is_below_the_rate(measured: float | None, seconds: float) -> None:
    settings = Settings(environment="production", backfill_share=1)
    estimate = estimate_requests(1_000, settings, rate=10, measured=measured)
    assert (estimate.seconds, estimate.is_measured) == (seconds, seconds == 500)


def test_the_estimate_is_at_least_the_time_until_the_last_parked_evaluation_is_due() -> None:
    settings = Settings(environment="production")
    assert estimate_requests(0, settings, rate=10, last_due=590).seconds == 590
