"""Parquet: a column of texts, or of UUIDs as 16 bytes."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO, Any
from uuid import UUID

from scripts.ids.candidate import BLANKS, BadCandidate, Candidates
from scripts.ids.columns import ROWS_LOOKED_AT, choose
from scripts.ids.errors import BadSource
from scripts.ids.facts import FactColumns, FactPositions

MAGIC = b"PAR1"
_BATCH = 1 << 14
_BUFFER = 1 << 20
_UUID_BYTES = 16


def read_parquet(file: IO[bytes], column: str | None, facts: FactColumns | None = None) -> Candidates:
    """Yield what stands in the column, and in those with facts; the file must be able to seek.

    Raises:
        BadSource: it is damaged, its column is not clear, or what reads Parquet is not installed.
    """
    with _open_table(file) as table:
        names = table.schema_arrow.names
        at = choose(names, _first_rows(table), column)
        known = facts.find(names) if facts else None
        positions = [at, *(known.columns if known else ())]
        for number, (value, *row) in enumerate(_rows(table, names, positions), 1):
            text = "" if value is None else _text(value)
            if text is None:
                yield number, BadCandidate(f"<{type(value).__name__}>", "it is no text")
            elif known:
                yield number, FactPositions(0, 1, 2).read(text.strip(BLANKS), row)
            else:
                yield number, text.strip(BLANKS)


@contextmanager
def _open_table(file: IO[bytes]) -> Iterator[Any]:
    try:
        import pyarrow.parquet  # noqa: PLC0415  # optional, and too large to be loaded by everybody
    except ImportError:
        raise BadSource("it is Parquet, which needs pyarrow: pip install 'docv-archive[parquet]'") from None
    try:
        with pyarrow.parquet.ParquetFile(file, buffer_size=_BUFFER, pre_buffer=False) as table:
            yield table
    except (pyarrow.ArrowException, OSError) as error:
        raise BadSource(f"it begins as Parquet, but cannot be read as such ({type(error).__name__})") from None


def _first_rows(table: Any) -> Iterator[list[str]]:
    batch = next(table.iter_batches(batch_size=ROWS_LOOKED_AT, use_threads=False), None)
    for row in batch.to_pylist() if batch else ():
        yield [_text(value) or "" for value in row.values()]


def _rows(table: Any, names: Sequence[str], positions: Sequence[int | None]) -> Iterator[tuple[object, ...]]:
    """Yield the values of columns; those of None are None. ``a.b`` also names what is nested in ``a``."""
    wanted = list({names[at] for at in positions if at is not None})
    for batch in table.iter_batches(batch_size=_BATCH, columns=wanted, use_threads=False):
        yield from zip(*(_values(batch, names, at) for at in positions), strict=True)


def _values(batch: Any, names: Sequence[str], at: int | None) -> Sequence[object]:
    """Return the values of a column in a batch, in which it has the place among those of its name that it has there."""
    if at is None:
        return [None] * len(batch)
    indices = batch.schema.get_all_field_indices(names[at])
    values: list[object] = batch.column(indices[names[:at].count(names[at])]).to_pylist()
    return values


def _text(value: object) -> str | None:
    match value:
        case str():
            return value
        case UUID():
            return str(value)
        case bytes() if len(value) == _UUID_BYTES:
            return str(UUID(bytes=value))
        case bytes():
            return value.decode(errors="replace")
    return None
