import pytest

from tasks.resilience.clock_offset import ClockOffset

AHEAD = 1000.0
"""Seconds by which the other clock is ahead of ours."""


def heard(clock: ClockOffset, at: float, *, there_after: float, back_after: float, ahead: float = AHEAD) -> None:
    """Have an answer to what was asked at some time: given after so long, and read here after as long again."""
    clock.heard(at, at + there_after + ahead, at + there_after + back_after)


def test_one_answer_says_what_time_it_is_here_at_the_latest() -> None:
    clock = ClockOffset()
    heard(clock, 50.0, there_after=0.001, back_after=0.004)
    assert clock.here(AHEAD + 60.0) == pytest.approx(60.004)


@pytest.mark.parametrize("delays", [(0.0001, 0.02, 0.005), (0.02, 0.0001, 0.005), (0.02, 0.005, 0.0001)])
def test_the_quickest_answer_counts_also_where_others_lay_here_unread(delays: tuple[float, ...]) -> None:
    clock = ClockOffset()
    for number, delay in enumerate(delays):
        heard(clock, 50.0 + number, there_after=0.001, back_after=delay)
    assert clock.here(AHEAD + 60.0) == pytest.approx(60.0001)


def test_that_it_took_long_to_get_there_does_not_matter() -> None:
    clock = ClockOffset()
    heard(clock, 50.0, there_after=3.0, back_after=0.0001)
    assert clock.here(AHEAD + 60.0) == pytest.approx(60.0001)


def test_a_clock_that_drifts_is_followed() -> None:
    clock = ClockOffset()
    for second in range(100):
        heard(clock, float(second), there_after=0.0, back_after=0.0, ahead=AHEAD + second / 1000)
    assert clock.here(AHEAD + 0.099 + 100.0) == pytest.approx(100.0, abs=0.011)


@pytest.mark.parametrize("jump", [-3600.0, -0.5, 0.5, 3600.0])
def test_a_clock_that_is_set_is_believed_at_once(jump: float) -> None:
    clock = ClockOffset()
    for second in range(5):
        heard(clock, float(second), there_after=0.001, back_after=0.001)
    heard(clock, 5.0, there_after=0.001, back_after=0.001, ahead=AHEAD + jump)
    assert clock.here(AHEAD + jump + 6.0) == pytest.approx(6.001)
