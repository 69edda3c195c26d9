"""The chart of the last hour: constant rates, gaps, the scale, and missing data."""

import pytest

from scripts.serve.page.rate_chart import RateChart, draw_chart

NOW = 1_800_000_000


def test_a_constant_rate_is_two_points_and_a_gap_ends_a_line() -> None:
    sent = [2.0, 2.0, 2.0, 4.0, None, 1.0]
    chart = draw_chart([(NOW - 3600 + 720 * number, 5.0, 5.0, value) for number, value in enumerate(sent)])
    assert chart.configured == ["0,0.0 1000,0.0"]
    assert chart.sent == ["0,60.0 400,60.0 600,20.0", "1000,80.0"]
    assert (chart.top, chart.highest, chart.sent_now, chart.is_short) == (5.0, 4.0, 1.0, False)


@pytest.mark.parametrize(("highest", "top"), [(0.2, 1), (1.5, 2), (3, 4), (4.1, 5), (7, 10), (10.5, 20), (430, 500)])
def test_the_top_of_the_chart_is_a_round_number(highest: float, top: float) -> None:
    assert draw_chart([(NOW, highest, 0.0, 0.0)]).top == top


def test_a_chart_is_short_when_it_covers_less_than_an_hour_and_empty_without_points() -> None:
    chart = draw_chart([(NOW - 600, 1.0, 1.0, 0.0), (NOW, 1.0, 1.0, 0.0)])
    assert (chart.is_short, chart.since, chart.highest) == (True, NOW - 600, 0.0)
    assert chart.sent == ["833,100.0 1000,100.0"]
    assert draw_chart([]) == RateChart()
