"""Open the lister for an archive in a bucket or a folder."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

from scripts.verify.local_objects import LocalObjectLister
from scripts.verify.objects_api import ObjectLister
from worker.config.settings import Settings


@asynccontextmanager
async def open_lister(settings: Settings) -> AsyncIterator[ObjectLister]:
    """Open the lister of the archive."""
    url = urlsplit(settings.archive_url)
    if url.scheme == "file":
        yield LocalObjectLister(Path(unquote(url.path)))
    else:
        from scripts.verify.s3_objects import open_s3_lister  # noqa: PLC0415  # a folder needs no HTTP client

        async with open_s3_lister(settings) as lister:
            yield lister
