"""The sections of the ledger's script: each lists the keys and the functions of earlier sections that it uses."""

import re
from pathlib import Path

import pytest

from tasks.ledger import script as module

FOLDER = Path(module.__file__).parent
SECTIONS = module.SECTIONS


def read(section: str) -> str:
    return (FOLDER / f"ledger_{section}.lua").read_text("utf-8")


def names_defined(section: str) -> set[str]:
    """Return the names that later sections may use."""
    found = re.findall(r"^local (?:function )?([\w, ]+)", read(section), re.MULTILINE)
    return {name.strip() for names in found for name in names.split(",")}


def names_used(section: str) -> set[str]:
    """Return the names in the code, without fields, named members of tables, strings and comments."""
    code = re.sub(r"--.*|'[^']*'", "", read(section))
    return set(re.findall(r"(?<![.\w])([A-Za-z_]\w*)(?!\s*=[^=])", code))


def names_listed(section: str, heading: str) -> set[str]:
    """Return the names that the head of a section lists after a heading."""
    head = read(section).partition("\n\n")[0].replace("\n--  ", "")
    listed = re.search(rf"^-- {heading}: (.*)$", head, re.MULTILINE)
    return set(re.findall(r"\w+", re.sub(r"\(\w+\)", "", listed[1]))) if listed else set()


@pytest.mark.parametrize("section", SECTIONS[1:])
def test_a_section_lists_the_keys_and_functions_that_it_uses(section: str) -> None:
    used, own = names_used(section), names_defined(section)
    earlier = SECTIONS[: SECTIONS.index(section)]
    keys = {name for name in names_defined("keys") if name not in own}
    functions = {name for each in earlier if each != "keys" for name in names_defined(each)} - own
    assert names_listed(section, "Keys") == used & keys
    assert names_listed(section, "Uses") == used & functions


def test_a_section_uses_no_function_of_a_later_one() -> None:
    for number, section in enumerate(SECTIONS):
        text = "".join(map(read, SECTIONS[number + 1 :]))
        later = set(re.findall(r"^local function (\w+)", text, re.MULTILINE))
        assert names_used(section) & later == set(), section
