import pytest

from scripts.console.formatting import format_bytes, format_count, format_number


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (727_501, "728 kB"), (2.5e9, "2.5 GB"), (3.2e15, "3,200.0 TB")],
)
def test_bytes_are_shown_in_a_suitable_unit(size: float, text: str) -> None:
    assert format_bytes(size) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (1e-5, "0.000"), (0.0665, "0.0665"), (4.5, "4.5"), (99.94, "99.9"), (360, "360"), (5_000, "5,000")],
)
def test_a_number_has_no_exponent(number: float, text: str) -> None:
    assert format_number(number) == text


@pytest.mark.parametrize(
    ("count", "words", "text"),
    [
        (1, ("evaluation",), "1 evaluation"),
        (0, ("evaluation",), "0 evaluations"),
        (1_204, ("damaged entry",), "1,204 damaged entries"),
        (1, ("object", "is", "are"), "1 object is"),
        (2, ("object", "is", "are"), "2 objects are"),
    ],
)
def test_a_count_has_the_matching_noun_and_verb(count: int, words: tuple[str, ...], text: str) -> None:
    assert format_count(count, *words) == text
