import pytest

from scripts.console.csv_safety import csv_safe


@pytest.mark.parametrize("cell", ["=1+1", "+1", "-1", "@SUM(A1)", "\tx", "\rx"])
def test_what_a_spreadsheet_would_run_is_shown_instead(cell: str) -> None:
    assert csv_safe(cell) == f"'{cell}"


@pytest.mark.parametrize("cell", ["", "front.jpg", "a=b"])
def test_everything_else_stays_as_it_is(cell: str) -> None:
    assert csv_safe(cell) == cell
