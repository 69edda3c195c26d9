"""Find phrases that make English hard to read, in comments and in texts for people.

No pattern matches its own source, so this file follows the rule, too.
"""

import ast
import io
import re
import tokenize
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from tests import repository


def _any_of(*phrases: str) -> re.Pattern[str]:
    """Compile phrases, regardless of case and of line breaks between their words."""
    return re.compile(rf"\b(?:{'|'.join(phrases)})(?!\w)".replace(" ", r"\s+"), re.IGNORECASE)


PERSONIFIED = _any_of(
    r"(?:who|no|some|every|any)(?:ever|body)",
    r"who (?:is|has|wants|asks|had|looks|comes|does|can|may|waits|sends|serves)",
)
IDIOMS = _any_of(
    r"so (?:many|much)",
    r"of our(?:s| own)",
    r"(?:stands?|stood) still",
    r"(?:is|are) none",
    r"(?:it|that) is no",
    r"is no [a-z]+:",
    r"where (?:there (?:is|are)|it is)",
    r"ane[w]",
    r"men[d](?:s|ed)?",
    r"shal[l]",
)
WORD = re.compile(r"[^\W\d_]+(?:['-][^\W\d_]+)*")


class Passage(NamedTuple):
    """Text that is read in one go, and the line of the file where it begins."""

    path: Path
    line: int
    text: str


@cache
def comments(root: Path) -> list[Passage]:
    """Return the comments and docstrings of all Python and Lua files of the packages."""
    return [passage for path in repository.sources(root) for passage in _comments(path)]


@cache
def texts(root: Path) -> list[Passage]:
    """Return texts for users and operators: pages, settings, templates, and strings of Python that contain a blank."""
    files = [*repository.pages(root), *root.glob(".env.example"), *repository.templates(root)]
    strings = [
        Passage(path, line, text.replace("\n", " "))
        for path in repository.modules(root)
        for line, text in _strings(repository.parse(path))
        if " " in text
    ]
    # The # before a comment or heading does not separate words.
    return [Passage(path, 1, re.sub(r"(?m)^#+", "", path.read_text("utf-8"))) for path in files] + strings


def find(phrases: re.Pattern[str], passages: Iterable[Passage], root: Path) -> tuple[list[str], float]:
    """Return each use of a phrase as ``file:line: text of the line``, and how many there are per 10,000 words."""
    places, words = [], 0
    for path, line, text in passages:
        words += len(WORD.findall(text))
        for found in phrases.finditer(text):
            offset = text.count("\n", 0, found.start())
            places.append((path, line + offset, text.split("\n")[offset].strip()))
    shown = [f"{path.relative_to(root)}:{line}: {text}" for path, line, text in sorted(places)]
    return shown, 10_000 * len(places) / max(words, 1)


def _comments(path: Path) -> Iterator[Passage]:
    source = path.read_text("utf-8")
    if path.suffix == ".lua":
        lines = enumerate(source.split("\n"), 1)
        yield from _blocks(path, [(number, line.partition("--")[2]) for number, line in lines if "--" in line])
        return
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    yield from _blocks(path, [(each.start[0], each.string[1:]) for each in tokens if each.type == tokenize.COMMENT])
    for node in ast.walk(repository.parse(path)):
        match node:
            case ast.Expr(value=ast.Constant(value=str(text))):
                yield Passage(path, node.lineno, text)


def _blocks(path: Path, numbered: Iterable[tuple[int, str]]) -> Iterator[Passage]:
    """Yield comments on adjacent lines as one passage."""
    for _, block in groupby(enumerate(numbered), key=lambda each: each[1][0] - each[0]):
        lines = [line for _, line in block]
        yield Passage(path, lines[0][0], "\n".join(text for _, text in lines))


def _strings(node: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield the strings below a node except docstrings; an f-string is one string with an ellipsis for each value."""
    for child in ast.iter_child_nodes(node):
        match child:
            case ast.Expr(value=ast.Constant()):
                pass
            case ast.Constant(value=str(text)):
                yield child.lineno, text
            case ast.JoinedStr(values=parts):
                yield child.lineno, "".join(part.value if isinstance(part, ast.Constant) else "…" for part in parts)
                for part in parts:
                    yield from _strings(part)
            case _:
                yield from _strings(child)
