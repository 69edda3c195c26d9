"""An archive with bundles in quarantine, as workers of an older version left them."""

from pathlib import Path

import pytest

from scripts.simulator.damage import forged_size, garbage
from tasks.model.evaluation import Evaluation
from tasks.storage.local_bucket import LocalBucket
from tests.archived_bundles import archive_as_unreadable, archive_bundle
from tests.archives import eval_ids
from tests.zips import zip_of

FILES = {"front.jpg": b"front" * 99, "back.jpg": b"back" * 99}
WHOLE, FORGED, GARBAGE, HEALED, NEVER = sorted(eval_ids(5))
"""In this order: readable now, readable leniently, unreadable, archived since then, and never refused."""


def evaluation(eval_id: str) -> Evaluation:
    return Evaluation(eval_id, "sandbox")


@pytest.fixture
async def bucket(tmp_path: Path) -> LocalBucket:
    bucket = LocalBucket(tmp_path / "archive")
    await archive_as_unreadable(bucket, zip_of(FILES), evaluation(WHOLE))
    await archive_as_unreadable(bucket, forged_size(FILES), evaluation(FORGED))
    await archive_as_unreadable(bucket, garbage(FILES), evaluation(GARBAGE))
    await archive_as_unreadable(bucket, garbage(FILES), evaluation(HEALED))
    await archive_bundle(bucket, zip_of(FILES), evaluation(HEALED))
    await archive_bundle(bucket, zip_of(FILES), evaluation(NEVER))
    return bucket
