import pytest

from scripts.console.formatting import format_bytes


@pytest.mark.parametrize(
    ("size", "said"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (727_501, "728 kB"), (2.5e9, "2.5 GB"), (3.2e15, "3,200.0 TB")],
)
def test_bytes_are_told_in_the_unit_that_fits(size: float, said: str) -> None:
    assert format_bytes(size) == said
