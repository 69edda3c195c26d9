"""Open the archive's bucket for a command: check it first, and close it cleanly."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

from obstore.store import S3Store

from tasks.errors import StorageError
from tasks.storage.bucket import Bucket
from tasks.storage.open_bucket import open_bucket
from worker.clients.archive import CLOSE_SECONDS, check_archive, check_conditional_writes, open_archive, open_tag_client
from worker.clients.errors import ServiceUnavailable
from worker.config.settings import Settings


@contextlib.asynccontextmanager
async def open_archive_bucket(settings: Settings) -> AsyncIterator[Bucket]:
    """Open the archive's bucket.

    Raises:
        SettingsError: there are no credentials for it.
        ServiceUnavailable: it does not answer, or stops answering.
    """
    archive = open_archive(settings)
    await check_archive(archive, settings)
    await check_conditional_writes(archive, settings)
    async with _close_in_order(archive):
        yield open_bucket(archive, settings.storage_class, tag_client=open_tag_client(settings))


@contextlib.asynccontextmanager
async def open_read_only_bucket(settings: Settings, *, may_be_new: bool = False) -> AsyncIterator[Bucket]:
    """Open the bucket for reading: a folder is not created and need not be writable.

    Args:
        may_be_new: accept a missing folder, which workers create with the first evaluation.

    Raises:
        SettingsError: there are no credentials for it.
        ServiceUnavailable: it is not there, or does not answer.
    """
    archive = open_archive(settings)
    if not isinstance(archive, Path):
        await check_archive(archive, settings)
    elif not (may_be_new and not archive.exists()) and not _is_readable(archive):
        raise ServiceUnavailable(f"{archive}: no readable archive was found here; check DOCV_ARCHIVE_URL")
    async with _close_in_order(archive):
        yield open_bucket(archive)


def _is_readable(folder: Path) -> bool:
    return folder.is_dir() and os.access(folder, os.R_OK | os.X_OK)


@contextlib.asynccontextmanager
async def _close_in_order(archive: S3Store | Path) -> AsyncIterator[None]:
    try:
        yield
    except StorageError as error:
        raise ServiceUnavailable(f"{error}; run the command again when it can") from None
    finally:
        if isinstance(archive, S3Store):
            await asyncio.sleep(CLOSE_SECONDS)
