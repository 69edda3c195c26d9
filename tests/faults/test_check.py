"""The check of fault tests finds each way in which an archive can be damaged."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from scripts.simulator.scenarios import Scenario, eval_id_for
from tests.faults.check import FolderArchive, Result, counters_match, examine
from tests.faults.cluster import running_cluster

_PASSPORT = eval_id_for(Scenario.PASSPORT, 1)
_TOMBSTONE = eval_id_for(Scenario.NOT_FOUND, 1)
_DAMAGED = eval_id_for(Scenario.DAMAGED_ALWAYS, 1)
_ALL = [_PASSPORT, _TOMBSTONE, _DAMAGED]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive that a worker made without any fault."""
    return asyncio.run(make_archive(tmp_path_factory.mktemp("sound") / "stage"))


async def make_archive(folder: Path) -> Path:
    """Let a worker make an archive, and return it."""
    async with running_cluster(folder) as cluster:
        await cluster.start_workers(1)
        await cluster.enqueue(_ALL, run="sound")
        counters = await cluster.wait_until_all_ended("sound", len(_ALL))
        assert counters_match(_ALL, counters)
        assert not counters_match(_ALL[:2], counters)
        return cluster.archive


def examine_after(archive: Path, harm: Callable[[Path], None], pattern: str) -> Result:
    """Change one file of the archive, check the archive, and put the file back."""
    file = next(archive.glob(pattern))
    content = file.read_bytes()
    harm(file)
    try:
        return examine(FolderArchive(archive), _ALL)
    finally:
        file.write_bytes(content)


def test_the_check_finds_nothing_when_the_archive_is_sound(archive: Path) -> None:
    result = examine(FolderArchive(archive), _ALL)
    assert result.is_sound, result


def test_an_evaluation_is_lost_when_it_was_never_archived(archive: Path) -> None:
    another = eval_id_for(Scenario.PASSPORT, 2)
    assert examine(FolderArchive(archive), [*_ALL, another]).lost == (another,)


def test_an_evaluation_is_incomplete_when_its_manifest_is_missing(archive: Path) -> None:
    result = examine_after(archive, Path.unlink, f"sandbox/{_PASSPORT}/manifest.json")
    assert result.lost == result.half == (_PASSPORT,)


@pytest.mark.parametrize(
    ("pattern", "eval_id"), [(f"sandbox/{_PASSPORT}/selfie/*", _PASSPORT), ("quarantine/*/*/*", _DAMAGED)]
)
def test_an_evaluation_is_incomplete_when_an_object_is_missing(archive: Path, pattern: str, eval_id: str) -> None:
    assert examine_after(archive, Path.unlink, pattern).half == (eval_id,)


def test_an_evaluation_is_wrong_when_a_document_has_other_bytes(archive: Path) -> None:
    def flip(file: Path) -> None:
        file.write_bytes(bytes([file.read_bytes()[0] ^ 1]) + file.read_bytes()[1:])

    assert examine_after(archive, flip, f"sandbox/{_PASSPORT}/selfie/*").wrong == (_PASSPORT,)


def test_an_evaluation_is_wrong_when_its_outcome_differs(archive: Path) -> None:
    def change_outcome(file: Path) -> None:
        file.write_text(file.read_text().replace('"not_found"', '"rejected"'))

    assert examine_after(archive, change_outcome, f"sandbox/{_TOMBSTONE}/manifest.json").wrong == (_TOMBSTONE,)


def test_an_unmentioned_key_is_unexpected_unless_it_is_half_written(archive: Path) -> None:
    (archive / "sandbox" / _PASSPORT / "more.jpg").touch()
    (archive / "sandbox" / _PASSPORT / ".0123.part").touch()
    result = examine(FolderArchive(archive), _ALL)
    (archive / "sandbox" / _PASSPORT / "more.jpg").unlink()
    (archive / "sandbox" / _PASSPORT / ".0123.part").unlink()
    assert (result.unexpected, result.leftovers) == ((f"sandbox/{_PASSPORT}/more.jpg",), 1)
