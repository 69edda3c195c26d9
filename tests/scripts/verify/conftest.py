"""The archive to verify, in a folder or in S3, with direct access to tamper with its objects."""

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
from tests.archives import PREFIX, ArchiveEditor, BucketEditor, FolderEditor
from worker.config.settings import Settings


@dataclass
class Target:
    """An archive that a test verifies and tampers with.

    Attributes:
        settings: settings that name the archive.
        bucket: the archive as workers use it.
        editor: direct access to the objects, for tampering.
        ctx: the context of the last verification.
    """

    settings: Settings
    bucket: Bucket
    editor: ArchiveEditor
    ctx: VerifyContext | None = None

    async def check(self, group: ObjectGroup) -> list[Difference]:
        """Return the differences of one evaluation or run."""
        async with open_lister(self.settings) as lister:
            return await find_differences(VerifyContext(self.bucket, lister, young=time.time()), group)

    async def verify(self, *, grace: float = 0, **facts: Any) -> list[Difference]:
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
async def target(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Target]:
    if request.param == "folder":
        root = tmp_path / "archive"
        root.mkdir()
        settings, editor = Settings(archive_url=root.as_uri()), FolderEditor(root)
    else:
        s3 = request.getfixturevalue("s3")
        settings = Settings(archive_url=f"s3://{s3.bucket}/{PREFIX}", s3_endpoint=s3.endpoint)
        editor = BucketEditor(s3)
    async with open_read_only_bucket(settings) as bucket:
        yield Target(settings, bucket, editor)
