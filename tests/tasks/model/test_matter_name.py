import pytest

from tasks.errors import BadMatterName
from tasks.model.matter_name import parse_matter


@pytest.mark.parametrize("name", ["a", "acme-v-bolt", "2026", "a-", "x" * 48])
def test_parse_matter_accepts_a_name_that_is_safe_anywhere(name: str) -> None:
    assert parse_matter(name) == name


@pytest.mark.parametrize(
    "name",
    ["", " a", "a ", "a\n", "a b", "-a", "A", "a.b", "..", "_a", "a_b", "a/b", "ä", "٣", "x" * 49, 7, None, b"a"],
)
def test_parse_matter_refuses_any_other_name(name: object) -> None:
    with pytest.raises(BadMatterName, match="lower-case letters, digits and hyphens"):
        parse_matter(name)
