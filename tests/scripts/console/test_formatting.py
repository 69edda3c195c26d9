import pytest

from scripts.console.formatting import csv_safe, format_bytes


@pytest.mark.parametrize(
    ("size", "said"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (727_501, "728 kB"), (2.5e9, "2.5 GB"), (3.2e15, "3,200.0 TB")],
)
def test_bytes_are_told_in_the_unit_that_fits(size: float, said: str) -> None:
    assert format_bytes(size) == said


@pytest.mark.parametrize("cell", ["=1+1", "+1", "-1", "@SUM(A1)", "\tx", "\rx"])
def test_what_a_spreadsheet_would_run_is_shown_instead(cell: str) -> None:
    assert csv_safe(cell) == f"'{cell}"


@pytest.mark.parametrize("cell", ["", "front.jpg", "a=b"])
def test_everything_else_stays_as_it_is(cell: str) -> None:
    assert csv_safe(cell) == cell
