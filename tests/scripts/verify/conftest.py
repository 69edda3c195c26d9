"""The archive to verify, in a folder and in S3, and direct access to tamper with it."""

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from scripts.archive_access.open_bucket import open_read_only_bucket
from scripts.verify.command import find_differences
from scripts.verify.context import VerifyContext
from scripts.verify.layout import ObjectGroup, group_objects
from scripts.verify.open_lister import open_lister
from scripts.verify.ordered_gather import ordered_gather
from scripts.verify.problems import Difference
from tasks.storage.bucket import Bucket
from tests.archives import PREFIX, BucketHand, FolderHand, Hand
from worker.config.settings import Settings


@dataclass
class Place:
    """An archive.

    Attributes:
        settings: its settings.
        bucket: the access of workers.
        hand: direct access, for tampering.
        ctx: the context of the last verification.
    """

    settings: Settings
    bucket: Bucket
    hand: Hand
    ctx: VerifyContext | None = None

    async def checked(self, group: ObjectGroup) -> list[Difference]:
        """Return the differences of one evaluation or run."""
        async with open_lister(self.settings) as lister:
            return await find_differences(VerifyContext(self.bucket, lister, young=time.time()), group)

    async def verified(self, *, grace: float = 0, **facts: Any) -> list[Difference]:
        """Return all differences."""
        async with open_lister(self.settings) as lister:
            ctx = self.ctx = VerifyContext(self.bucket, lister, young=time.time() - grace, **facts)
            groups = group_objects(lister.walk(""))
            return [
                each
                async for some in ordered_gather(24, lambda group: find_differences(ctx, group), groups)
                for each in some
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
    async with open_read_only_bucket(settings) as bucket:
        yield Place(settings, bucket, hand)
