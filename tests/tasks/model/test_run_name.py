import pytest

from tasks.errors import BadRunName
from tasks.model.run_name import parse_run


@pytest.mark.parametrize("name", ["a", "2026-q3", "A.b_c-9", "x" * 64])
def test_parse_run_accepts_a_name_that_is_safe_anywhere(name: str) -> None:
    assert parse_run(name) == name


@pytest.mark.parametrize(
    "name",
    ["", " a", "a ", "a\n", "a b", "-a", ".a", "..", "_a", "a/b", "a:b", "ä", "٣", "x" * 65, 7, None, b"a", ["a"]],
)
def test_parse_run_refuses_any_other_name(name: object) -> None:
    with pytest.raises(BadRunName):
        parse_run(name)
