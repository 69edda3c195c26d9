"""Find the column with the evaluation IDs: the requested one, or the only possible one."""

from collections.abc import Collection, Iterable, Sequence

from scripts.ids.candidate import is_id
from scripts.ids.errors import BadSource
from tasks.model.evaluation import printable_id

DETECTION_ROWS = 100
"""The number of rows at the beginning of a source that columns are detected from."""
_LISTED = 20
_DIGITS = 6


def is_known(name: str) -> bool:
    """Return whether a column of this name holds evaluation IDs, ignoring case, blanks, hyphens and underscores."""
    return _plain(name) in {"evalid", "evaluationid"}


def choose(names: Sequence[str], rows: Iterable[Sequence[str]], column: str | None, nested: Sequence[str] = ()) -> int:
    """Return the position, from 0, of the column with the evaluation IDs; nested ones come after the others.

    Args:
        names: names of all columns, or their numbers if they have no names.
        rows: the first rows; used only if the names do not decide.
        column: the requested name, or number from 1.
        nested: names, such as ``data.eval_id``, of columns in other columns; only used if requested.

    Raises:
        BadSource: there is no such column, or more than one is possible.
    """
    if column is not None:
        return find_named([*names, *nested], column)
    known = [at for at, name in enumerate(names) if is_known(name)]
    if len(known) == 1:
        return known[0]
    holding = {at for row in rows for at, cell in enumerate(row) if is_id(cell)}
    if len(holding) == 1:
        return holding.pop()
    raise BadSource(f"the column with the evaluation IDs is ambiguous; give --column with one of {_join_names(names)}")


def find_known(names: Sequence[str], known: Collection[str], option: str) -> int | None:
    """Return the position, from 0, of the only column with one of the known names, or None.

    Raises:
        BadSource: there is more than one; ``option`` selects one of them.
    """
    found = [at for at, name in enumerate(names) if _plain(name) in known]
    if len(found) > 1:
        raise BadSource(f"it is not clear which column is meant; give {option} with one of {_join_names(names)}")
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
            f"more than one column is called {printable_id(column)!r}; give {option} with its number, from 1"
        )
    if found:
        return found[0]
    if column.isascii() and column.isdigit() and len(column) <= _DIGITS and 0 < int(column) <= len(names):
        return int(column) - 1
    raise BadSource(f"there is no column {printable_id(column)!r}; give {option} with one of {_join_names(names)}")


def _join_names(names: Sequence[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(repr(printable_id(name)) for name in names[:_LISTED]) + more


def _plain(name: str) -> str:
    return "".join(char for char in name.casefold() if char.isalnum())
