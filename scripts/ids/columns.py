"""Which column holds the evaluation IDs: the one that was asked for, or the only one it can be."""

from collections.abc import Collection, Iterable, Sequence

from scripts.ids.candidate import is_id
from scripts.ids.errors import BadSource
from tasks.model.evaluation import printable_id

ROWS_LOOKED_AT = 100
"""Rows at the beginning of a source from which its columns are told."""
_LISTED = 20
_DIGITS = 6


def is_known(name: str) -> bool:
    """Whether a column of this name holds evaluation IDs; case, blanks, hyphens and underscores do not matter."""
    return _plain(name) in {"evalid", "evaluationid"}


def choose(names: Sequence[str], rows: Iterable[Sequence[str]], column: str | None) -> int:
    """Return the position, from 0, of the column with the evaluation IDs.

    Args:
        names: of all columns; where they have none, their numbers.
        rows: the first ones; only looked at when names do not tell.
        column: the name, or the number from 1, that was asked for.

    Raises:
        BadSource: there is no such column, or it is not clear which one it is.
    """
    if column is not None:
        return find_named(names, column)
    known = [at for at, name in enumerate(names) if is_known(name)]
    if len(known) == 1:
        return known[0]
    holding = {at for row in rows for at, cell in enumerate(row) if is_id(cell)}
    if len(holding) == 1:
        return holding.pop()
    raise BadSource(
        f"it is not clear which column holds the evaluation IDs; say --column with one of {_join_names(names)}"
    )


def find_known(names: Sequence[str], known: Collection[str], option: str) -> int | None:
    """Return the position, from 0, of the only column with one of the known names; None if there is none.

    Raises:
        BadSource: there is more than one; ``option`` would say which.
    """
    found = [at for at, name in enumerate(names) if _plain(name) in known]
    if len(found) > 1:
        raise BadSource(f"it is not clear which column is meant; say {option} with one of {_join_names(names)}")
    return found[0] if found else None


def find_named(names: Sequence[str], column: str, option: str = "--column") -> int:
    """Return the position, from 0, of the column with a name, or a number from 1, that ``option`` asks for.

    Raises:
        BadSource: there is no such column, or more than one.
    """
    exactly = [at for at, name in enumerate(names) if name == column]
    found = exactly or [at for at, name in enumerate(names) if _plain(column) and _plain(name) == _plain(column)]
    if len(found) > 1:
        raise BadSource(
            f"more than one column is called {printable_id(column)!r}; say {option} with its number, from 1"
        )
    if found:
        return found[0]
    if column.isascii() and column.isdigit() and len(column) <= _DIGITS and 0 < int(column) <= len(names):
        return int(column) - 1
    raise BadSource(f"there is no column {printable_id(column)!r}; say {option} with one of {_join_names(names)}")


def _join_names(names: Sequence[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(repr(printable_id(name)) for name in names[:_LISTED]) + more


def _plain(name: str) -> str:
    return "".join(char for char in name.casefold() if char.isalnum())
