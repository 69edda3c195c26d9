"""Open the archive for the commands about legal holds, and find the matter that they name."""

import contextlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import click

from scripts.archive_access.open_bucket import open_archive_bucket
from scripts.archive_access.s3_client import S3Archive, open_s3_archive
from tasks.errors import IntegrityError, ManifestChanged
from tasks.storage.bucket import Bucket
from tasks.storage.matter import MatterRecord, MatterState, read_matter
from worker.clients.errors import ServiceUnavailable
from worker.config.settings import Settings, SettingsError


@dataclass(frozen=True, slots=True)
class HoldStores:
    """The archive.

    Attributes:
        bucket: the archive.
        s3: the same archive, if it is in S3.
    """

    bucket: Bucket
    s3: S3Archive | None


@contextlib.asynccontextmanager
async def open_hold_stores(settings: Settings) -> AsyncIterator[HoldStores]:
    """Open the archive to put evaluations under legal holds, or to release them.

    Raises:
        SettingsError: there are no credentials for it, or its bucket has no Object Lock.
        ServiceUnavailable: it does not answer, or one of its records is damaged.
    """
    archive = open_s3_archive(settings)
    if archive and not archive.has_object_lock():
        # Workers write objects under a matter with S3's legal hold, which such a bucket refuses.
        raise SettingsError(
            (f"bucket {archive.bucket} has no Object Lock, so S3 has no legal hold there; turn Object Lock on first",)
        )
    with translate_record_errors():
        async with open_archive_bucket(settings) as bucket:
            yield HoldStores(bucket, archive)


@contextlib.contextmanager
def translate_record_errors() -> Iterator[None]:
    """Translate errors of the records of matters.

    Raises:
        ServiceUnavailable: a record is damaged, or other commands changed it at every try.
    """
    try:
        yield
    except IntegrityError as error:
        raise ServiceUnavailable(str(error)) from None
    except ManifestChanged:
        raise ServiceUnavailable("other commands are changing the matter: run the same command again") from None


async def find_matter(bucket: Bucket, matter: str) -> MatterRecord:
    """Return the record of a matter.

    Raises:
        click.UsageError: there is no such matter.
        IntegrityError: its record is damaged.
        StorageError: the archive fails.
    """
    record = await read_matter(bucket, matter)
    if record is None:
        raise click.UsageError(
            f"matter {matter} does not exist: `docv-archive legal-hold list` shows all matters, and `docv-archive "
            f"legal-hold create {matter} --reason TEXT` creates it"
        )
    return record


async def find_open_matter(bucket: Bucket, matter: str) -> MatterRecord:
    """Return the record of a matter to which evaluations can be added; raises as ``find_matter``."""
    record = await find_matter(bucket, matter)
    if record.state is not MatterState.OPEN:
        raise click.UsageError(
            f"the release of matter {matter} began at {record.release_begun_at}, so nothing can be added: create "
            "another matter"
        )
    return record
