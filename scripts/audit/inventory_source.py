"""Open an inventory, wherever it is: the manifest.json of a report, or one data file alone."""

import gzip
import hashlib
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO

from scripts.audit.inventory_description import DataFile, Description, locate, read_description
from scripts.audit.inventory_objects import InventoryObject, read_csv, read_parquet
from scripts.ids.errors import BadSource
from scripts.ids.parquet import MAGIC
from scripts.ids.s3 import download, is_s3
from scripts.ids.scratch import scratch_file, scratch_folder
from worker.config.settings import Settings

_GZIP = b"\x1f\x8b"
_LARGEST_MANIFEST = 64 << 20


@contextmanager
def open_inventory(source: str, settings: Settings) -> Iterator[Iterator[InventoryObject]]:
    """Lend the objects that an inventory lists.

    Args:
        source: path or ``s3://bucket/key`` of a manifest.json, or of a data file: CSV or Parquet, also gzipped.
        settings: name the S3, and the folder for what has to be brought here.

    Raises:
        BadSource: it cannot be read, now or later, or is damaged.
        ServiceUnavailable: S3, or this machine's disk, does not do what it is asked.
        SettingsError: there are no credentials for S3.
    """
    with _named(source), _open(source, settings) as file:
        if _begins(file).lstrip().startswith(b"{"):
            yield _open_described(read_description(file.read(_LARGEST_MANIFEST)), source, settings)
        else:
            yield _read_objects(file, None)


def _open_described(description: Description, source: str, settings: Settings) -> Iterator[InventoryObject]:
    for part in description.files:
        where = locate(part, source)
        with _named(where), _open(where, settings) as file:
            _check(file, part)
            for listed in _read_objects(file, description.columns):
                if listed.bucket != description.bucket:
                    raise BadSource(f"it lists the bucket {listed.bucket}, its manifest {description.bucket}")
                yield listed


def _check(file: IO[bytes], part: DataFile) -> None:
    digest = hashlib.file_digest(file, partial(hashlib.md5, usedforsecurity=False))  # type: ignore[arg-type]
    file.seek(0)
    if digest.hexdigest() != part.md5.lower():
        raise BadSource("its bytes are not those its manifest speaks of: fetch it again")


def _read_objects(file: IO[bytes], columns: Sequence[str] | None) -> Iterator[InventoryObject]:
    beginning = _begins(file)
    if beginning.startswith(MAGIC):
        return read_parquet(file)
    return read_csv(gzip.open(file) if beginning.startswith(_GZIP) else file, columns)  # type: ignore[arg-type]


def _begins(file: IO[bytes]) -> bytes:
    beginning = file.read(64)
    file.seek(0)
    return beginning


@contextmanager
def _open(source: str, settings: Settings) -> Iterator[IO[bytes]]:
    if is_s3(source):
        folder = scratch_folder(settings)
        with scratch_file(folder) as file:
            download(source, settings.s3_endpoint, file, folder)
            yield file
    else:
        with Path(source).open("rb") as file:
            yield file


@contextmanager
def _named(source: str) -> Iterator[None]:
    """Say in a sentence what is wrong with a source, and which it is."""
    try:
        yield
    except BadSource as error:
        raise BadSource(error.why, error.source or source) from None
    except EOFError:
        raise BadSource("the gzip file is cut short: fetch it again", source) from None
    except (gzip.BadGzipFile, zlib.error):
        raise BadSource("the gzip file is damaged: fetch it again", source) from None
    except OSError as error:
        raise BadSource(f"it cannot be read: {error.strerror or type(error).__name__}", source) from None
