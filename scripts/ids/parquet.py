"""Read Parquet: a column of texts, or of UUIDs as 16 bytes."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import IO, Any
from uuid import UUID

from scripts.ids.candidate import BLANKS, BadCandidate, Candidates
from scripts.ids.columns import DETECTION_ROWS, choose
from scripts.ids.errors import BadSource
from scripts.ids.facts import RowColumns
from worker.config.extras import explain_extra

MAGIC = b"PAR1"
_BATCH = 1 << 14
_BUFFER = 1 << 20
_UUID_BYTES = 16
_Path = tuple[str, ...]
"""Names of a column, from the outermost struct inwards."""


def read_parquet(file: IO[bytes], column: str | None, facts: RowColumns | None = None) -> Candidates:
    """Yield the values of the column, and of other requested ones; the file must be seekable.

    Raises:
        BadSource: it is damaged, its column is not clear, or pyarrow is not installed.
    """
    with _open_table(file) as table:
        names = table.schema_arrow.names
        paths = [path for path in _nested_paths(table.schema_arrow) if ".".join(path) not in names]
        nested = [".".join(path) for path in paths]
        at = choose(names, _first_rows(table), column, nested)
        known = facts.find(names, nested) if facts else None
        reader = known.narrow() if known else None
        columns = [*((name,) for name in names), *paths]
        positions = [at, *(known.columns if known else ())]
        for number, (value, *row) in enumerate(_rows(table, columns, positions), 1):
            text = "" if value is None else _text(value)
            if text is None:
                yield number, BadCandidate(f"<{type(value).__name__}>", "it is not text")
            elif reader:
                yield number, reader.read(text.strip(BLANKS), row)
            else:
                yield number, text.strip(BLANKS)


@contextmanager
def _open_table(file: IO[bytes]) -> Iterator[Any]:
    try:
        import pyarrow.parquet  # noqa: PLC0415  # optional and large
    except ImportError:
        raise BadSource(f"it is Parquet, which needs pyarrow: {explain_extra('parquet')}") from None
    try:
        with pyarrow.parquet.ParquetFile(file, buffer_size=_BUFFER, pre_buffer=False) as table:
            yield table
    except (pyarrow.ArrowException, OSError) as error:
        raise BadSource(f"it begins like Parquet, but cannot be read as Parquet ({type(error).__name__})") from None


def _first_rows(table: Any) -> Iterator[list[str]]:
    batch = next(table.iter_batches(batch_size=DETECTION_ROWS, use_threads=False), None)
    for row in batch.to_pylist() if batch else ():
        yield [_text(value) or "" for value in row.values()]


def _nested_paths(fields: Iterable[Any], above: _Path = ()) -> Iterator[_Path]:
    """Yield the path of each column that is nested in a struct."""
    import pyarrow.types  # noqa: PLC0415  # optional

    for field in fields:
        path = (*above, field.name)
        if above:
            yield path
        if pyarrow.types.is_struct(field.type):
            yield from _nested_paths(field.type, path)


def _rows(table: Any, columns: Sequence[_Path], positions: Sequence[int | None]) -> Iterator[tuple[object, ...]]:
    """Yield the values of columns, or None for a position of None; ``a.b`` also names a field nested in ``a``."""
    wanted = list({".".join(columns[at]) for at in positions if at is not None})
    for batch in table.iter_batches(batch_size=_BATCH, columns=wanted, use_threads=False):
        yield from zip(*(_values(batch, columns, at) for at in positions), strict=True)


def _values(batch: Any, columns: Sequence[_Path], at: int | None) -> Sequence[object]:
    """Return the values of a column in a batch, where columns of the same name have the same order."""
    if at is None:
        return [None] * len(batch)
    path = columns[at]
    indices = batch.schema.get_all_field_indices(path[0])
    values = batch.column(indices[0 if path[1:] else columns[:at].count(path)])
    for name in path[1:]:
        values = values.flatten()[values.type.get_field_index(name)]
    rows: list[object] = values.to_pylist()
    return rows


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
