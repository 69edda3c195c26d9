"""The objects that a data file of an inventory lists; of a versioned bucket only those that are there now.

S3 User Guide, "Amazon S3 Inventory list": a CSV has no header, and its keys are URL-encoded; those of Parquet are not.
"""

import csv
import io
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any
from urllib.parse import unquote_plus

from scripts.ids.errors import BadSource

_BATCH = 1 << 14
_BUCKET, _KEY, _LATEST, _MARKER, _SIZE = "bucket", "key", "islatest", "isdeletemarker", "size"
_TRUE = {"true", "1"}
_BARE = (_BUCKET, _KEY, _SIZE)


@dataclass(frozen=True, slots=True)
class InventoryObject:
    """One object of an inventory.

    Attributes:
        bucket: its bucket.
        key: its key, whole.
        size: bytes; 0 where the inventory does not say.
    """

    bucket: str
    key: str
    size: int


def read_csv(file: IO[bytes], columns: Sequence[str] | None) -> Iterator[InventoryObject]:
    """Yield the objects of a CSV.

    Args:
        columns: their names; where nobody says them they stand in the first row, or are bucket, key and size.

    Raises:
        BadSource: it cannot be read so.
    """
    # Closed by us: whoever let go of it without that would close the file with a warning.
    with io.TextIOWrapper(file, "utf-8", errors="replace", newline="") as text:
        try:
            yield from _objects(csv.reader(text, strict=True), columns)
        except csv.Error:
            raise BadSource("it is no CSV: expected are bucket, key and size a line") from None


def _objects(rows: Iterator[list[str]], columns: Sequence[str] | None) -> Iterator[InventoryObject]:
    first = next(rows, None)
    if first is None:
        return
    names = [_plain(name) for name in columns or first]
    header = columns is None and _KEY in names
    if columns is None and not header:
        # Only the manifest.json of a report of versions says which of them are there now.
        if any(cell.lower() in {"true", "false"} for cell in first):
            raise BadSource(
                "it lists versions, and does not say in which columns: name the manifest.json it belongs to"
            )
        names = list(_BARE[: len(first)])
    for row in rows if header else itertools.chain([first], rows):
        yield from _current(names, row, coded=True)


def read_parquet(file: IO[bytes]) -> Iterator[InventoryObject]:
    """Yield the objects of a Parquet file, which names its columns itself.

    Raises:
        BadSource: it is damaged, or what reads Parquet is not installed.
    """
    pa, parquet = _pyarrow()
    try:
        with parquet.ParquetFile(file, pre_buffer=False) as table:
            names = [name for name in table.schema_arrow.names if _plain(name) in {*_BARE, _LATEST, _MARKER}]
            for batch in table.iter_batches(batch_size=_BATCH, columns=names, use_threads=False):
                plain = [_plain(name) for name in batch.schema.names]
                for row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                    cells = ["" if value is None else str(value) for value in row]
                    yield from _current(plain, cells, coded=False)
    except (pa.ArrowException, OSError) as error:
        raise BadSource(f"it begins as Parquet, but cannot be read as such ({type(error).__name__})") from None


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow  # noqa: ICN001, PLC0415  # optional, and too large to be loaded by everybody
        import pyarrow.parquet  # noqa: PLC0415
    except ImportError:
        raise BadSource("it is Parquet, which needs pyarrow: pip install 'docv-archive[parquet]'") from None
    return pyarrow, pyarrow.parquet


def _current(names: Sequence[str], row: Sequence[str], *, coded: bool) -> Iterator[InventoryObject]:
    """Yield the object of a row, unless it is a former version, or a deleted one."""
    cells = dict(zip(names, row, strict=False))
    if _BUCKET not in cells or _KEY not in cells:
        raise BadSource("it has a row without bucket and key; expected are these columns, and size")
    if cells.get(_LATEST, "true").lower() not in _TRUE or cells.get(_MARKER, "false").lower() in _TRUE:
        return
    size = cells.get(_SIZE, "")
    key = unquote_plus(cells[_KEY]) if coded else cells[_KEY]
    yield InventoryObject(cells[_BUCKET], key, int(size) if size.isascii() and size.isdigit() else 0)


def _plain(name: str) -> str:
    return "".join(char for char in name.casefold() if char.isalnum())
