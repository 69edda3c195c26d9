"""For twelve years, an archive under a schedule has on each day what a model says, whatever happens meanwhile."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tasks.model.evaluation import Evaluation
from tasks.storage.local_bucket import LocalBucket
from tests.faults.retention_model import Document
from tests.faults.retention_world import RetentionWorld, SimulatedClock, WorldSize
from worker.config.settings import Settings

_SHORT = WorldSize(evaluations=30, busy_days=70)
_SHORT_SEED = 2
"""Everything that is counted happens with it."""


def find_files(root: Path) -> Callable[[Evaluation], set[Document]]:
    """Return a function that finds the documents of an evaluation in a folder."""

    def find(evaluation: Evaluation) -> set[Document]:
        found = (root / evaluation.environment / evaluation.eval_id).glob("*/*.*")
        return {(path.parent.name, path.stem) for path in found if path.parent.name != "revisions"}

    return find


def in_a_folder(root: Path, seed: int, size: WorldSize) -> RetentionWorld:
    root.mkdir()
    settings = Settings(archive_url=root.as_uri())
    return RetentionWorld(seed, size, settings, LocalBucket(root), SimulatedClock(), find_files(root))


def sentence(world: RetentionWorld) -> str:
    """Return what happened, in one line."""
    counted = ", ".join(f"{count:,} {what}" for what, count in sorted(world.counts.items()))
    return (
        f"retention, {world.size.evaluations:,} evaluations for {world.size.years} years ({counted}): as the model says"
    )


async def test_an_archive_in_a_folder_is_on_each_day_as_the_schedule_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, figures: Callable[[str], None]
) -> None:
    world = in_a_folder(tmp_path / "archive", _SHORT_SEED, _SHORT)
    with world.installed(monkeypatch):
        await world.live()
    figures(sentence(world))
    happened = ("disposed of", "erasures", "killed", "stored again meanwhile", "release", "apply a plan", "replay")
    assert min(world.counts[each] for each in happened) > 0
