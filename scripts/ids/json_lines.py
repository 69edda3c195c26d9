"""Read JSON Lines: objects with the evaluation ID under a key, or the IDs themselves as strings."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

import orjson

from scripts.ids.candidate import BLANKS, BadCandidate, Candidates, RowCandidate, is_id
from scripts.ids.columns import DETECTION_ROWS, choose, is_known
from scripts.ids.facts import RowColumns, RowReader
from scripts.ids.lines import TOO_LONG, Lines, is_too_long
from tasks.model.evaluation import printable_id

_DEEPEST = 16
"""Levels of nested objects whose keys can be requested."""
_MISSING = object()


def is_json_line(line: str, column: str | None) -> bool:
    """Return whether a file with this first line holds JSON Lines.

    A lone string may also be the quoted header of a CSV, or the first of its cells.
    """
    value = _value(line)
    if isinstance(value, str):
        return is_id(value) or (column is None and not is_known(value))
    return isinstance(value, dict)


def find_key(numbered: Iterable[tuple[int, str]], column: str | None) -> str:
    """Return the key of the evaluation IDs, from the first lines.

    Raises:
        BadSource: there is no such key, or more than one is possible.
    """
    values = (_value(line) for _, line in numbered)
    objects = list(islice((value for value in values if isinstance(value, dict)), DETECTION_ROWS))
    if not objects:
        return column or "eval_id"
    names, nested = _name_keys(objects)
    rows = ([str(each.get(name)) for name in names] for each in objects)
    return [*names, *nested][choose(names, rows, column, nested)]


@dataclass(frozen=True, slots=True)
class FactKeys:
    """The keys that are read besides the ID.

    Attributes:
        names: the keys; None for missing ones.
        reader: reads their values.
    """

    names: Sequence[str | None]
    reader: RowReader

    def read(self, eval_id: str, value: object) -> RowCandidate:
        """Return the ID with the values of its object."""
        return self.reader.read(eval_id, [None if name is None else _look_up(value, name) for name in self.names])


def find_fact_keys(numbered: Iterable[tuple[int, str]], facts: RowColumns) -> FactKeys | None:
    """Return the keys with facts, from the first lines: exports omit keys without a value.

    Raises:
        BadSource: a requested key is missing, or more than one is possible.
    """
    values = (_value(line) for _, line in numbered)
    names, nested = _name_keys([value for value in values if isinstance(value, dict)])
    found = facts.find(names, nested)
    if found is None:
        return None
    return FactKeys([None if at is None else [*names, *nested][at] for at in found.columns], found.narrow())


def read_json_lines(numbered: Lines, key: str, facts: FactKeys | None = None) -> Candidates:
    """Yield the value of the key on each line that is not empty."""
    for number, line in numbered:
        if is_too_long(line):
            yield number, BadCandidate(line, TOO_LONG)
        elif not line.isspace():
            value = _value(line)
            candidate = _candidate(value, line, key)
            yield number, facts.read(candidate, value) if facts and isinstance(candidate, str) else candidate


def _candidate(value: object, line: str, key: str) -> str | BadCandidate:
    if isinstance(value, dict):
        value = _look_up(value, key, _MISSING)
        if value is _MISSING:
            return BadCandidate(line, f'it has no "{printable_id(key)}"')
    elif not isinstance(value, str):
        return BadCandidate(line, "it is neither a JSON object nor a JSON string")
    if isinstance(value, str):
        return value.strip(BLANKS)
    return "" if value is None else BadCandidate(line, f'its "{printable_id(key)}" is not a string')


def _name_keys(objects: Sequence[dict[str, Any]]) -> tuple[list[str], list[str]]:
    """Return the keys of objects, and those of the objects in them, each as ``outer.inner``."""
    names = dict.fromkeys(chain.from_iterable(objects))
    nested = dict.fromkeys(name for each in objects for name in _nested_names(each, _DEEPEST))
    return list(names), [name for name in nested if name not in names]


def _nested_names(value: dict[str, Any], depth: int) -> Iterator[str]:
    for name, inner in value.items():
        if isinstance(inner, dict) and depth:
            yield from (f"{name}.{each}" for each in chain(inner, _nested_names(inner, depth - 1)))


def _look_up(value: object, key: str, missing: object = None) -> Any:
    """Return the value of a key, which may be nested and may itself contain dots."""
    if not isinstance(value, dict):
        return missing
    if key in value:
        return value[key]
    for at in (at for at, char in enumerate(key) if char == "."):
        found = _look_up(value.get(key[:at]), key[at + 1 :], missing)
        if found is not missing:
            return found
    return missing


def _value(line: str) -> Any:
    """Return the JSON value of a line; None if it is not JSON."""
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
