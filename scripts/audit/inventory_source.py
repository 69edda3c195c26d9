"""Open an inventory on this machine or in S3: the manifest.json of a report, or a single data file."""

import gzip
import hashlib
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO

from scripts.audit.inventory_description import DataFile, Description, find_data_file, read_description
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
    """Yield an iterator of the objects that an inventory lists.

    Args:
        source: path or ``s3://bucket/key`` of a manifest.json, or of a data file: CSV or Parquet, optionally gzipped.
        settings: the settings, for the S3 endpoint and the folder for downloads.

    Raises:
        BadSource: the source is damaged or cannot be read; also during iteration.
        ServiceUnavailable: S3, or this machine's disk, fails.
        SettingsError: no credentials for S3 are configured.
    """
    with _translate_errors(source), _open(source, settings) as file:
        if _peek(file).lstrip().startswith(b"{"):
            yield _open_described(read_description(file.read(_LARGEST_MANIFEST)), source, settings)
        else:
            yield _read_objects(file, None)


def _open_described(description: Description, source: str, settings: Settings) -> Iterator[InventoryObject]:
    for part in description.files:
        where = find_data_file(part, source)
        with _translate_errors(where), _open(where, settings) as file:
            _check_md5(file, part)
            for listed in _read_objects(file, description.columns):
                if listed.bucket != description.bucket:
                    raise BadSource(f"it lists the bucket {listed.bucket}, its manifest {description.bucket}")
                yield listed


def _check_md5(file: IO[bytes], part: DataFile) -> None:
    digest = hashlib.file_digest(file, partial(hashlib.md5, usedforsecurity=False))  # type: ignore[arg-type]
    file.seek(0)
    if digest.hexdigest() != part.md5.lower():
        raise BadSource("its MD5 is not the one in its manifest: download it again")


def _read_objects(file: IO[bytes], columns: Sequence[str] | None) -> Iterator[InventoryObject]:
    beginning = _peek(file)
    if beginning.startswith(MAGIC):
        return read_parquet(file)
    return read_csv(gzip.open(file) if beginning.startswith(_GZIP) else file, columns)  # type: ignore[arg-type]


def _peek(file: IO[bytes]) -> bytes:
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
def _translate_errors(source: str) -> Iterator[None]:
    """Translate errors to BadSource, with the name of the source."""
    try:
        yield
    except BadSource as error:
        raise BadSource(error.why, error.source or source) from None
    except EOFError:
        raise BadSource("the gzip file is cut short: download it again", source) from None
    except (gzip.BadGzipFile, zlib.error):
        raise BadSource("the gzip file is damaged: download it again", source) from None
    except OSError as error:
        raise BadSource(f"it cannot be read: {error.strerror or type(error).__name__}", source) from None
