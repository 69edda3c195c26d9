"""A text with an ID a line."""

from scripts.ids.candidate import BadCandidate
from scripts.ids.lines import LONGEST
from scripts.ids.text_lines import read_text


def test_blanks_around_are_taken_off_and_empty_lines_left_out() -> None:
    numbered = enumerate([" a\t\n", "\n", " \n", "b"], 1)
    assert list(read_text(numbered)) == [(1, "a"), (4, "b")]


def test_a_line_that_is_too_long_is_flawed_even_if_it_is_only_blanks_after_an_id(eval_id: str) -> None:
    [(_, flawed)] = read_text(iter([(1, eval_id + " " * LONGEST)]))
    assert isinstance(flawed, BadCandidate)
