"""Periods follow the calendar and never end early."""

from datetime import date

import pytest

from tasks.retention.period import Period


@pytest.mark.parametrize(
    ("period", "start", "first_day_after"),
    [
        ("5y", date(2020, 3, 1), date(2025, 3, 2)),
        ("1y", date(2024, 2, 29), date(2025, 3, 2)),
        ("4y", date(2024, 2, 29), date(2028, 3, 1)),
        ("1mo", date(2025, 1, 31), date(2025, 3, 2)),
        ("12mo", date(2023, 12, 31), date(2025, 1, 1)),
        ("1d", date(2024, 2, 28), date(2024, 3, 1)),
        ("90d", date(2025, 1, 1), date(2025, 4, 2)),
        ("100y", date(2000, 1, 1), date(2100, 1, 2)),
    ],
)
def test_a_period_ends_on_the_corresponding_calendar_day(period: str, start: date, first_day_after: date) -> None:
    assert Period.parse(period).first_day_after(start) == first_day_after


@pytest.mark.parametrize(
    "text", ["", "5", "y", "0y", "-1y", "5 y", "5Y", "1.5y", "5y ", "٣y", "05y", "100000d", "101y", 5, None]
)
def test_a_text_that_is_not_a_period_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="expected a"):
        Period.parse(text)


@pytest.mark.parametrize("text", ["5y", "18mo", "90d"])
def test_a_period_is_shown_as_it_was_written(text: str) -> None:
    assert str(Period.parse(text)) == text
