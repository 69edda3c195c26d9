"""JSON lines: an object a line that has the evaluation ID under a key, or the ID itself as a string."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import orjson

from scripts.ids.candidate import BLANKS, BadCandidate, Candidates, KnownCandidate, is_id
from scripts.ids.columns import ROWS_LOOKED_AT, choose, is_known
from scripts.ids.facts import FactColumns, FactPositions
from scripts.ids.lines import TOO_LONG, Lines, is_too_long
from tasks.model.evaluation import printable_id


def is_json_line(line: str, column: str | None) -> bool:
    """Whether a file that begins with this line holds JSON lines.

    A lone string may also be the quoted header of a CSV, or the first of its cells.
    """
    value = _value(line)
    if isinstance(value, str):
        return is_id(value) or (column is None and not is_known(value))
    return isinstance(value, dict)


def find_key(numbered: Iterable[tuple[int, str]], column: str | None) -> str:
    """Return the key of the evaluation IDs, from the first lines.

    Raises:
        BadSource: there is no such key, or it is not clear which one it is.
    """
    values = (_value(line) for _, line in numbered)
    objects = list(islice((value for value in values if isinstance(value, dict)), ROWS_LOOKED_AT))
    if not objects:
        return column or "eval_id"
    names: list[str] = list(dict.fromkeys(name for each in objects for name in each))
    rows = ([str(each.get(name)) for name in names] for each in objects)
    return names[choose(names, rows, column)]


@dataclass(frozen=True, slots=True)
class FactKeys:
    """The keys of document type, reason codes and time; None for those that are not there."""

    names: Sequence[str | None]

    def read(self, eval_id: str, value: object) -> KnownCandidate:
        """Return the ID with what its object says of it."""
        row = [value.get(name) for name in self.names] if isinstance(value, dict) else []
        return FactPositions(0, 1, 2).read(eval_id, row)


def find_fact_keys(numbered: Iterable[tuple[int, str]], facts: FactColumns) -> FactKeys | None:
    """Return the keys with facts, from the first lines: exports leave out what an evaluation does not have.

    Raises:
        BadSource: one that is asked for is not there, or it is not clear which one it is.
    """
    values = (_value(line) for _, line in numbered)
    names = list(dict.fromkeys(name for value in values if isinstance(value, dict) for name in value))
    found = facts.find(names)
    if found is None:
        return None
    return FactKeys([None if at is None else names[at] for at in found.columns])


def read_json_lines(numbered: Lines, key: str, facts: FactKeys | None = None) -> Candidates:
    """Yield what stands under the key on each line that is not empty."""
    for number, line in numbered:
        if is_too_long(line):
            yield number, BadCandidate(line, TOO_LONG)
        elif not line.isspace():
            value = _value(line)
            candidate = _candidate(value, line, key)
            yield number, facts.read(candidate, value) if facts and isinstance(candidate, str) else candidate


def _candidate(value: object, line: str, key: str) -> str | BadCandidate:
    if isinstance(value, dict):
        if key not in value:
            return BadCandidate(line, f'it has no "{printable_id(key)}"')
        value = value[key]
    elif not isinstance(value, str):
        return BadCandidate(line, "it is neither a JSON object nor a JSON string")
    if isinstance(value, str):
        return value.strip(BLANKS)
    return "" if value is None else BadCandidate(line, f'its "{printable_id(key)}" is no string')


def _value(line: str) -> Any:
    """Return what a line says in JSON, None when that is nothing."""
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
