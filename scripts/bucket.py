"""The archive's bucket for a command: seen to be there before anything is asked of it."""

from tasks.bucket import Bucket
from tasks.buckets import bucket_at
from worker.resources import check_archive, open_archive
from worker.settings import Settings


async def open_bucket(settings: Settings) -> Bucket:
    """Return the archive's bucket.

    Raises:
        SettingsError: there are no credentials for it.
        Unreachable: it does not answer.
    """
    archive = open_archive(settings)
    await check_archive(archive, settings)
    return bucket_at(archive, settings.storage_class)
