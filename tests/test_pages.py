"""The pages name the settings, commands, metrics and log events of the code, and leave none out."""

import ast
import re
import statistics
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from scripts.cli import main
from tests import repository
from tests.command_line import load
from tests.counting import described
from tests.test_deploy import KNOWN, SETTING

ROOT = Path(__file__).parents[1]
PAGES = {page.name: page.read_text("utf-8") for page in repository.pages(ROOT) if page.name != "CHANGELOG.md"}
TEXT = "\n".join(PAGES.values())
EVENT = re.compile(r"[a-z_]+\.[a-z_]+")
LEVELS = {"debug", "info", "warning", "error"}


def commands(group: click.Group, *before: str) -> Iterator[tuple[str, ...]]:
    """Yield the words of every command that is not a group."""
    for name in group.list_commands(click.Context(group)):
        command = load(name) if group is main else group.commands[name]
        if isinstance(command, click.Group):
            yield from commands(command, *before, name)
        else:
            yield (*before, name)


def events() -> set[str]:
    """Return the names of all log events, except those of outcomes and of actions."""
    logged = [
        node.args[0]
        for _, node in repository.nodes(ROOT, ast.Call)
        if isinstance(node.func, ast.Attribute) and node.func.attr in LEVELS and node.args
    ]
    constants = [each.value for first in logged for each in ast.walk(first) if isinstance(each, ast.Constant)]
    return {value for value in constants if isinstance(value, str) and EVENT.fullmatch(value)}


def events_in_table() -> set[str]:
    table = PAGES["metrics.md"].split("| event | level |")[1].split("\n\n")[0]
    return set(re.findall(r"`([a-z_]+\.[a-z_]+)`", re.sub(r"(?m)^(\| .*? \|).*", r"\1", table)))


@pytest.mark.parametrize("page", PAGES)
def test_a_page_names_only_settings_that_exist(page: str) -> None:
    assert set(SETTING.findall(PAGES[page])) <= KNOWN


def test_every_setting_is_on_a_page() -> None:
    assert set(SETTING.findall(TEXT)) >= KNOWN


def test_every_command_is_on_a_page() -> None:
    missing = {" ".join(command) for command in commands(main)}
    assert {name for name in missing if not re.search(rf"docv-archive {name}\b|`{name}\b", TEXT)} == set()


@pytest.mark.parametrize("page", PAGES)
def test_a_page_names_only_metrics_that_exist(page: str) -> None:
    files = {name.lower() for name in KNOWN}  # secrets of systemd and containers
    assert set(re.findall(r"`(docv_\w+)", PAGES[page])) - files - {"docv_step"} <= described().keys()  # evidence


def test_the_page_on_metrics_lists_every_log_event() -> None:
    assert events_in_table() == events()


def test_pages_name_only_log_events_that_exist() -> None:
    prefixes = {event.partition(".")[0] for event in events()}
    named = re.findall(rf"`((?:{'|'.join(sorted(prefixes))})\.(?!py`|json`)[a-z_]+)`", TEXT)
    assert set(named) - {"evaluation.archived"} <= events()


def sentence_lengths(text: str) -> list[int]:
    """Return the number of words of each sentence, without code blocks, tables, pictures and headings."""
    prose = re.sub(r"(?ms)^```.*?^```$|^\|.*?$|^#.*?$|^!.*?$", "", text)
    prose = re.sub(r"\]\([^)]*\)", "", prose)
    sentences = re.split(r"[.!?][*`)]*\s|\n\n|\n(?=\* |\d\. )", prose)
    return [len(words) for sentence in sentences if (words := re.findall(r"[\w`'./-]*\w[\w`'./-]*", sentence))]


def test_sentences_are_counted_without_code_and_addresses() -> None:
    text = "# Title\n\nOne [two](docs/x.md) three. Four\nfive:\n\n```\nsix seven. Eight\n```\n\n* Nine.\n* Ten `x.y`\n"
    assert sentence_lengths(text) == [3, 2, 1, 2]


@pytest.mark.parametrize("page", PAGES)
def test_the_sentences_of_a_page_are_short(page: str) -> None:
    assert statistics.mean(sentence_lengths(PAGES[page])) <= 20


@pytest.mark.parametrize("page", [page for page in PAGES if page != "README.md"])
def test_a_page_begins_with_its_readers_and_is_in_the_readme(page: str) -> None:
    assert re.match(r"# .+\n\nFor ", PAGES[page])
    assert re.search(rf"\]\((docs/)?{page}\)", PAGES["README.md"])


def test_code_and_deployments_name_only_pages_and_headings_that_exist() -> None:
    for place in repository.matches(ROOT, re.compile(r"\bdocs/[\w-]+\.md(?:#[\w-]+)?")):
        file, _, found = place.rpartition(": ")
        page, _, anchor = found.partition("#")
        if not file.startswith("tests/"):
            assert (ROOT / page).exists(), place
            assert not anchor or anchor in repository.anchors(ROOT / page), place
