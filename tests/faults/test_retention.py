"""For twelve years, an archive under a schedule matches a model on each day, whatever happens meanwhile."""

import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tasks.model.evaluation import Evaluation
from tasks.storage.local_bucket import LocalBucket
from tests.conftest import S3
from tests.faults.locked_bucket import LockedBucket
from tests.faults.retention_model import Document
from tests.faults.retention_world import RetentionWorld, WorldSize
from tests.faults.scale import Scale
from tests.faults.simulated_clock import SimulatedClock
from worker.config.settings import Settings

_SHORT_SEED = 1
"""With this seed, everything that is counted happens."""
_SHORT, _SHORT_IN_S3 = (
    WorldSize(evaluations=16, busy_days=50),
    WorldSize(evaluations=4, busy_days=8, verify_days=2_000, plans=1),
)
_MONTHLY = WorldSize(evaluations=1_000, verify_days=30, plans=20, is_checked_daily=False)
_YEARLY = WorldSize(
    100_000, busy_days=6, actions=1, plans=3, has_leap_days=False, is_aligned=True, is_checked_daily=False
)
_LONG_IN_S3 = WorldSize(evaluations=200, busy_days=40, plans=3, is_checked_daily=False)
_HOURS = 4


def find_files(root: Path) -> Callable[[Evaluation], set[Document]]:
    """Return a function that finds the documents of an evaluation in a folder."""

    def find(evaluation: Evaluation) -> set[Document]:
        found = (root / evaluation.environment / evaluation.eval_id).glob("*/*.*")
        return {(path.parent.name, path.stem) for path in found if path.parent.name != "revisions"}

    return find


def make_world_in_folder(root: Path, seed: int, size: WorldSize) -> RetentionWorld:
    root.mkdir()
    settings = Settings(archive_url=root.as_uri())
    return RetentionWorld(seed, size, settings, LocalBucket(root), SimulatedClock(), find_files(root))


def sentence(world: RetentionWorld) -> str:
    """Return the counts of all events in one line."""
    counted = ", ".join(f"{count:,} {what}" for what, count in sorted(world.counts.items()) if count)
    return (
        f"retention, {world.size.evaluations:,} evaluations for {world.size.years} years ({counted}): as the model says"
    )


async def run_world(world: RetentionWorld, monkeypatch: pytest.MonkeyPatch, figures: Callable[[str], None]) -> None:
    started = time.monotonic()
    world.install(monkeypatch)
    try:
        await world.run_all_years()
    except Exception as error:
        error.add_note(f"seed {world.seed}, {world.size}, on {world.today}")
        raise
    figures(f"{sentence(world)}; seed {world.seed}, {time.monotonic() - started:,.0f} s")


def choose_seed(scale: Scale) -> int:
    return random.SystemRandom().randrange(1 << 32) if scale.long else _SHORT_SEED


async def test_an_archive_in_a_folder_matches_the_schedule_on_each_day(
    scale: Scale, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, figures: Callable[[str], None]
) -> None:
    world = make_world_in_folder(tmp_path / "archive", choose_seed(scale), _MONTHLY if scale.long else _SHORT)

    await run_world(world, monkeypatch, figures)

    happened = ("disposed of", "erasures", "killed", "stored again meanwhile", "release", "apply a plan", "replay")
    assert [each for each in happened if not world.counts[each]] == []


@pytest.mark.timeout(_HOURS * 3_600)
async def test_a_large_archive_in_a_folder_matches_the_schedule_in_each_year(
    scale: Scale, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, figures: Callable[[str], None]
) -> None:
    if not scale.long:
        pytest.skip("it has no short form")
    await run_world(make_world_in_folder(tmp_path / "archive", choose_seed(scale), _YEARLY), monkeypatch, figures)


@pytest.mark.timeout(_HOURS * 3_600)
async def test_a_bucket_with_object_lock_matches_the_schedule_on_each_day(
    scale: Scale, s3: S3, monkeypatch: pytest.MonkeyPatch, figures: Callable[[str], None]
) -> None:
    clock, size = SimulatedClock(), _LONG_IN_S3 if scale.long else _SHORT_IN_S3
    locked = LockedBucket(s3, clock.read)
    stores = locked.settings, locked.bucket, clock, locked.find_documents, locked
    world = RetentionWorld(choose_seed(scale), size, *stores)

    await run_world(world, monkeypatch, figures)

    happened = ("disposed of", "kept by a lock", "erasures") if scale.long else ("disposed of",)
    assert [each for each in happened if not world.counts[each]] == []
