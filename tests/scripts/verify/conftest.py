"""The archive to be verified: in a folder and in S3, with somebody who can tamper with it."""

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from scripts.archive_access.open_bucket import opened_for_reading
from scripts.verify.command import differences_of
from scripts.verify.context import VerifyContext
from scripts.verify.layout import Group, grouped
from scripts.verify.open_lister import opened_shelves
from scripts.verify.ordered_gather import at_once
from scripts.verify.problems import Difference
from tasks.storage.bucket import Bucket
from tests.archives import PREFIX, BucketHand, FolderHand, Hand
from worker.config.settings import Settings


@dataclass
class Place:
    """An archive.

    Attributes:
        settings: where it is.
        bucket: for workers.
        hand: for others.
        means: what the last verification worked with.
    """

    settings: Settings
    bucket: Bucket
    hand: Hand
    means: VerifyContext | None = None

    async def checked(self, group: Group) -> list[Difference]:
        """Return the differences of one place."""
        async with opened_shelves(self.settings) as shelves:
            return await differences_of(VerifyContext(self.bucket, shelves, young=time.time()), group)

    async def verified(self, *, grace: float = 0, **facts: Any) -> list[Difference]:
        """Return all differences."""
        async with opened_shelves(self.settings) as shelves:
            means = self.means = VerifyContext(self.bucket, shelves, young=time.time() - grace, **facts)
            groups = grouped(shelves.walk(""))
            return [
                each async for some in at_once(24, lambda group: differences_of(means, group), groups) for each in some
            ]


@pytest.fixture(params=["folder", "s3"])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place]:
    if request.param == "folder":
        root = tmp_path / "archive"
        root.mkdir()
        settings, hand = Settings(archive_url=root.as_uri()), FolderHand(root)
    else:
        s3 = request.getfixturevalue("s3")
        settings = Settings(archive_url=f"s3://{s3.bucket}/{PREFIX}", s3_endpoint=s3.endpoint)
        hand = BucketHand(s3)
    async with opened_for_reading(settings) as bucket:
        yield Place(settings, bucket, hand)
