"""The column with the IDs."""

from uuid import uuid4

import pytest

from scripts.ids.columns import choose
from scripts.ids.errors import BadSource


@pytest.mark.parametrize("name", ["eval_id", "EvalID", "Eval ID", "eval-id", "evaluation_id", " Evaluation-Id "])
def test_choose_finds_a_known_name_in_any_spelling(name: str) -> None:
    assert choose(["a", name, "b"], [], None) == 1


def test_choose_finds_the_only_column_with_ids_without_a_known_name() -> None:
    assert choose(["a", "b"], [["x", "y"], ["x", f" {uuid4()}"]], None) == 1


@pytest.mark.parametrize("rows", [[], [["x", "y"]], [[str(uuid4()), str(uuid4())]]])
def test_choose_lists_the_columns_when_the_choice_is_ambiguous(rows: list[list[str]]) -> None:
    with pytest.raises(BadSource, match=r"ambiguous; give --column with one of 'a', 'b'$"):
        choose(["a", "b"], rows, None)


def test_choose_picks_the_column_with_ids_when_two_names_are_known() -> None:
    assert choose(["eval_id", "evaluation_id"], [["1", str(uuid4())]], None) == 1


@pytest.mark.parametrize("column", ["User ID", "user_id", "USERID", "2"])
def test_choose_accepts_a_name_or_a_number(column: str) -> None:
    assert choose(["eval_id", "User ID"], [], column) == 1


def test_choose_prefers_an_exact_name_to_a_similar_name_and_a_number() -> None:
    assert choose(["user id", "user_id"], [], "user_id") == 1
    assert choose(["2", "1"], [], "2") == 0


@pytest.mark.parametrize("column", ["c", "0", "3", "-1", "²", "9" * 5000, "_", ""])
def test_choose_lists_the_columns_when_the_requested_one_is_missing(column: str) -> None:
    with pytest.raises(BadSource, match=r"there is no column .* with one of 'a', 'b'$"):
        choose(["a", "b"], [], column)


def test_choose_requires_a_number_when_two_columns_have_the_same_name() -> None:
    with pytest.raises(BadSource, match="more than one column is called 'a'; give --column with its number"):
        choose(["a", "a"], [], "a")


def test_choose_lists_at_most_twenty_columns_and_escapes_them() -> None:
    with pytest.raises(BadSource) as refused:
        choose([f"\x1b[31m{number}" for number in range(100)], [], "c")
    assert str(refused.value).count("[31m") == 20
    assert "and 80 more" in str(refused.value)
    assert "\x1b" not in str(refused.value)
