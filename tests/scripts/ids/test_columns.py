"""The column with the IDs."""

from uuid import uuid4

import pytest

from scripts.ids.columns import choose
from scripts.ids.errors import BadSource


@pytest.mark.parametrize("name", ["eval_id", "EvalID", "Eval ID", "eval-id", "evaluation_id", " Evaluation-Id "])
def test_a_known_name_is_found_however_it_is_written(name: str) -> None:
    assert choose(["a", name, "b"], [], None) == 1


def test_else_it_is_the_only_one_in_which_ids_stand() -> None:
    assert choose(["a", "b"], [["x", "y"], ["x", f" {uuid4()}"]], None) == 1


@pytest.mark.parametrize("rows", [[], [["x", "y"]], [[str(uuid4()), str(uuid4())]]])
def test_when_it_is_not_clear_the_columns_are_named(rows: list[list[str]]) -> None:
    with pytest.raises(BadSource, match=r"ambiguous; give --column with one of 'a', 'b'$"):
        choose(["a", "b"], rows, None)


def test_two_known_names_leave_it_to_what_stands_in_them() -> None:
    assert choose(["eval_id", "evaluation_id"], [["1", str(uuid4())]], None) == 1


@pytest.mark.parametrize("column", ["User ID", "user_id", "USERID", "2"])
def test_a_column_is_asked_for_by_name_or_number(column: str) -> None:
    assert choose(["eval_id", "User ID"], [], column) == 1


def test_a_name_that_is_exactly_so_goes_before_one_that_is_nearly_so_and_before_a_number() -> None:
    assert choose(["user id", "user_id"], [], "user_id") == 1
    assert choose(["2", "1"], [], "2") == 0


@pytest.mark.parametrize("column", ["c", "0", "3", "-1", "²", "9" * 5000, "_", ""])
def test_a_column_that_is_not_there_is_told_with_those_that_are(column: str) -> None:
    with pytest.raises(BadSource, match=r"there is no column .* with one of 'a', 'b'$"):
        choose(["a", "b"], [], column)


def test_of_two_with_one_name_a_number_says_which() -> None:
    with pytest.raises(BadSource, match="more than one column is called 'a'; give --column with its number"):
        choose(["a", "a"], [], "a")


def test_at_most_twenty_are_named_and_none_raw() -> None:
    with pytest.raises(BadSource) as refused:
        choose([f"\x1b[31m{number}" for number in range(100)], [], "c")
    assert str(refused.value).count("[31m") == 20
    assert "and 80 more" in str(refused.value)
    assert "\x1b" not in str(refused.value)
