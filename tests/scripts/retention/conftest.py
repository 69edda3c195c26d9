"""An archive in a folder, with a retention schedule next to it."""

from pathlib import Path

import pytest

from tasks.storage.bucket import Bucket
from tasks.storage.local_bucket import LocalBucket
from tests.archives import eval_ids, fill
from tests.commands import Shell

SCHEDULE = """
[[rule]]
name = "selfies"
kind = "selfie"
keep_for = "3y"
clock = "archived"

[[rule]]
name = "fronts"
kind = "document_front"
keep_for = "5y"
clock = "relationship_ended"
keep = "must"
"""
ARCHIVED, REVISED, TOMBSTONE = (eval_ids(4)[number] for number in (0, 1, 3))
"""In this order: an evaluation with three documents, one with documents of three revisions, and one without any."""


@pytest.fixture
async def bucket(tmp_path: Path) -> Bucket:
    bucket = LocalBucket(tmp_path / "archive")
    await fill(bucket, eval_ids(4), size=100)
    return bucket


@pytest.fixture
def shell(bucket: Bucket, tmp_path: Path) -> Shell:
    assert bucket
    (tmp_path / "retention.toml").write_text(SCHEDULE)
    return Shell(tmp_path, {"DOCV_RETENTION": "retention.toml"})
