"""Read the objects that a data file of an inventory lists; of a versioned bucket, only the current versions.

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
from worker.config.extras import explain_extra

_BATCH = 1 << 14
_BUCKET, _KEY, _LATEST, _MARKER, _SIZE = "bucket", "key", "islatest", "isdeletemarker", "size"
_TRUE = {"true", "1"}
_BARE = (_BUCKET, _KEY, _SIZE)


@dataclass(frozen=True, slots=True)
class InventoryObject:
    """One object of an inventory.

    Attributes:
        bucket: name of the bucket.
        key: the full key.
        size: bytes; 0 if the inventory does not have it.
    """

    bucket: str
    key: str
    size: int


def read_csv(file: IO[bytes], columns: Sequence[str] | None) -> Iterator[InventoryObject]:
    """Yield the objects of a CSV.

    Args:
        columns: names of the columns; None if they are in the first row, or are bucket, key and size.

    Raises:
        BadSource: the file is not a valid CSV, or its columns are not known.
    """
    # Closed explicitly: an abandoned wrapper would close the file later, with a ResourceWarning.
    with io.TextIOWrapper(file, "utf-8", errors="replace", newline="") as text:
        try:
            yield from _objects(csv.reader(text, strict=True), columns)
        except csv.Error:
            raise BadSource("it is not a valid CSV: expected bucket, key and size in each line") from None


def _objects(rows: Iterator[list[str]], columns: Sequence[str] | None) -> Iterator[InventoryObject]:
    first = next(rows, None)
    if first is None:
        return
    names = [_normalize_column(name) for name in columns or first]
    header = columns is None and _KEY in names
    if columns is None and not header:
        # Without the columns in manifest.json, current versions cannot be distinguished from others.
        if any(cell.lower() in {"true", "false"} for cell in first):
            raise BadSource(
                "it lists versions, but does not name its columns: give the manifest.json that it belongs to"
            )
        names = list(_BARE[: len(first)])
    for row in rows if header else itertools.chain([first], rows):
        yield from _parse_current(names, row, url_encoded=True)


def read_parquet(file: IO[bytes]) -> Iterator[InventoryObject]:
    """Yield the objects of a Parquet file, which names its own columns.

    Raises:
        BadSource: the file is damaged, or pyarrow is not installed.
    """
    pa, parquet = _import_pyarrow()
    try:
        with parquet.ParquetFile(file, pre_buffer=False) as table:
            names = [name for name in table.schema_arrow.names if _normalize_column(name) in {*_BARE, _LATEST, _MARKER}]
            for batch in table.iter_batches(batch_size=_BATCH, columns=names, use_threads=False):
                plain = [_normalize_column(name) for name in batch.schema.names]
                for row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                    cells = ["" if value is None else str(value) for value in row]
                    yield from _parse_current(plain, cells, url_encoded=False)
    except (pa.ArrowException, OSError) as error:
        raise BadSource(f"it begins like Parquet, but is damaged ({type(error).__name__})") from None


def _import_pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow  # noqa: ICN001, PLC0415  # optional, and slow to import
        import pyarrow.parquet  # noqa: PLC0415
    except ImportError:
        raise BadSource(f"it is Parquet, which needs pyarrow: {explain_extra('parquet')}") from None
    return pyarrow, pyarrow.parquet


def _parse_current(names: Sequence[str], row: Sequence[str], *, url_encoded: bool) -> Iterator[InventoryObject]:
    """Yield the object of a row, unless the row is a noncurrent version or a delete marker."""
    cells = dict(zip(names, row, strict=False))
    if _BUCKET not in cells or _KEY not in cells:
        raise BadSource("it has a row without bucket and key: expected the columns bucket, key and size")
    if cells.get(_LATEST, "true").lower() not in _TRUE or cells.get(_MARKER, "false").lower() in _TRUE:
        return
    size = cells.get(_SIZE, "")
    key = unquote_plus(cells[_KEY]) if url_encoded else cells[_KEY]
    yield InventoryObject(cells[_BUCKET], key, int(size) if size.isascii() and size.isdigit() else 0)


def _normalize_column(name: str) -> str:
    return "".join(char for char in name.casefold() if char.isalnum())
