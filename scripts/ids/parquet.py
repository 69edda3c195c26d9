"""Parquet: a column of texts, or of UUIDs as 16 bytes."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any
from uuid import UUID

from scripts.ids.candidate import BLANKS, BadCandidate, Candidates
from scripts.ids.columns import ROWS_LOOKED_AT, choose
from scripts.ids.errors import BadSource

MAGIC = b"PAR1"
_BATCH = 1 << 14
_BUFFER = 1 << 20
_UUID_BYTES = 16


def read_parquet(file: IO[bytes], column: str | None) -> Candidates:
    """Yield what stands in the column; the file must be able to seek.

    Raises:
        BadSource: it is damaged, its column is not clear, or what reads Parquet is not installed.
    """
    parquet = _pyarrow_parquet()
    with _translated(), parquet.ParquetFile(file, buffer_size=_BUFFER, pre_buffer=False) as table:
        names = table.schema_arrow.names
        at = choose(names, _first_rows(table), column)
        for number, value in enumerate(_values(table, names[at], names[:at].count(names[at])), 1):
            yield number, _candidate(value)


def _pyarrow_parquet() -> Any:
    try:
        import pyarrow.parquet  # noqa: PLC0415  # optional, and too large to be loaded by everybody
    except ImportError:
        raise BadSource("it is Parquet, which needs pyarrow: pip install 'docv-archive[parquet]'") from None
    return pyarrow.parquet


@contextmanager
def _translated() -> Iterator[None]:
    import pyarrow as pa  # noqa: PLC0415  # see above

    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise BadSource(f"it begins as Parquet, but cannot be read as such ({type(error).__name__})") from None


def _first_rows(table: Any) -> Iterator[list[str]]:
    batch = next(_batches(table, ROWS_LOOKED_AT, None), None)
    for row in batch.to_pylist() if batch else ():
        yield [_text(value) or "" for value in row.values()]


def _batches(table: Any, size: int, names: list[str] | None) -> Iterator[Any]:
    batches: Iterator[Any] = table.iter_batches(batch_size=size, columns=names, use_threads=False)
    return batches


def _values(table: Any, name: str, nth: int) -> Iterator[object]:
    """Yield the values of the nth column, from 0, of this name; ``a.b`` also names what is nested in ``a``."""
    for batch in _batches(table, _BATCH, [name]):
        yield from batch.column(batch.schema.get_all_field_indices(name)[nth]).to_pylist()


def _candidate(value: object) -> str | BadCandidate:
    text = "" if value is None else _text(value)
    return BadCandidate(f"<{type(value).__name__}>", "it is no text") if text is None else text.strip(BLANKS)


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
