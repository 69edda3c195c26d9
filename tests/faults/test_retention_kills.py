"""A command is killed with SIGKILL before each of its calls to the archive; the same command completes it."""

import json
import random
import shutil
import signal
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from tasks.storage.local_bucket import LocalBucket
from tests.archives import eval_ids, fill
from tests.commands import Finished, Shell, finish
from tests.faults.scale import Scale
from tests.scripts.retention.disposals import RetainedArchive
from worker.config.settings import Settings

IDS = eval_ids(2)
MATTER = "acme-v-bolt"
SCHEDULE = """
[[rule]]
name = "selfies"
kind = "selfie"
keep_for = "1y"
clock = "last_contact"
"""
CREATE = ("legal-hold", "create", MATTER, "--reason", "case 17")
ADD = ("legal-hold", "add", MATTER, *IDS)


@dataclass
class Stage:
    """An archive in a folder, which is the same before each command.

    Attributes:
        folder: a folder for the archive and a copy of it.
        scale: how many calls are tried.
        figures: adds a line of figures.
        before: commands that precede the killed one.
    """

    folder: Path
    scale: Scale
    figures: Callable[[str], None]
    before: list[tuple[str, ...]] = field(default_factory=list)

    @property
    def archive(self) -> Path:
        return self.folder / "stage" / "archive"

    @property
    def shell(self) -> Shell:
        return Shell(self.archive.parent, {"DOCV_RETENTION": "retention.toml"})

    async def prepare(self) -> None:
        """Make the archive, and keep a copy of it."""
        root = self.archive
        await fill(LocalBucket(root), IDS, size=100)
        # An embedded Redis was used here before, and no worker runs: there is nothing to wait for.
        private = root.parent / ".docv-archive" / "private"
        private.mkdir(0o700, parents=True)
        (private / "redis.users").touch()
        (root.parent / "retention.toml").write_text(SCHEDULE)
        for command in self.before:
            await self.complete(*command)
        shutil.copytree(root.parent, self.folder / "copy")

    async def run(self, place: int, *command: str) -> tuple[Finished, int]:
        """Run a command on the archive as it was prepared, and kill it before a call; return how many calls it made."""
        shutil.rmtree(self.archive.parent)
        shutil.copytree(self.folder / "copy", self.archive.parent)
        count = self.folder / "count"
        count.unlink(missing_ok=True)
        killing = {"KILL_AT": str(place), "KILL_FOLDER": str(self.archive), "KILL_COUNT": str(count)}
        shell = replace(self.shell, settings=self.shell.settings | killing)
        finished = await finish(await shell.start(*command, module="tests.faults.killed_command"))
        return finished, count.stat().st_size

    async def complete(self, *command: str) -> None:
        """Run a command to its end."""
        finished = await self.shell.run(*command)
        assert finished.code == 0, finished.err

    def manifest(self, eval_id: str) -> dict[str, Any]:
        return dict(json.loads((self.archive / "sandbox" / eval_id / "manifest.json").read_text()))

    def records(self, pattern: str) -> list[dict[str, Any]]:
        return [json.loads(path.read_text()) for path in sorted(self.archive.glob(pattern))]


@pytest.fixture
def stage(tmp_path: Path, scale: Scale, figures: Callable[[str], None]) -> Stage:
    return Stage(tmp_path, scale, figures)


async def kill_and_complete(stage: Stage, command: tuple[str, ...], check: Callable[[], None]) -> None:
    """Kill a command before each call, run it again, and check the archive each time."""
    await stage.prepare()
    finished, calls = await stage.run(0, *command)
    assert finished.code == 0, finished.err
    check()
    places = stage.scale.spread(range(1, calls + 1), random.Random(calls))  # noqa: S311  # not a secret
    killed = 0
    for place in places:
        finished, _ = await stage.run(place, *command)
        killed += finished.code == -signal.SIGKILL
        await stage.complete(*command)
        check()
        if stage.scale.long or place == places[-1]:
            await stage.complete("verify", "--grace", "0")
    stage.figures(f"killed before a call to a folder, {' '.join(command[:2])}: {killed} of {calls} calls, nothing half")
    # The number of calls varies a little: a command looks again while it waits for others.
    assert killed >= max(1, len(places) - 2)


async def test_an_application_that_is_killed_at_any_call_is_completed_by_the_same_command(
    stage: Stage,
) -> None:
    root = stage.archive
    archive = RetainedArchive(Settings(archive_url=root.as_uri()), LocalBucket(root))
    for eval_id in IDS:
        await archive.report(eval_id, "last_contact", "2020-01-01", "2020-01-02")
    stage.before.append(("retention", "plan", "--out", "plan.jsonl"))

    def check() -> None:
        assert not list(root.glob("sandbox/*/selfie/*"))
        (certificate,) = stage.records("receipts/disposals/sandbox/*.json")
        disposed = [each for eval_id in IDS for each in stage.manifest(eval_id)["disposed"]]
        assert Counter((each["kind"], each["sha256"], each["size"]) for each in disposed) == Counter(
            (each["kind"], each["sha256"], each["size"]) for each in certificate["documents"]
        )
        facts = certificate["rule"], certificate["evaluations"], certificate["bytes"]
        assert facts == ("selfies", len(IDS), sum(each["size"] for each in disposed))

    await kill_and_complete(stage, ("retention", "apply", "plan.jsonl", "--yes", "--by", "records"), check)


async def test_a_report_of_events_that_is_killed_at_any_call_is_completed_by_the_same_command(
    stage: Stage,
) -> None:
    def check() -> None:
        found = [(each["eval_id"], each["event"], each["date"]) for each in stage.records("events/sandbox/*/*.json")]
        assert sorted(found) == sorted((eval_id, "last_contact", "2020-01-01") for eval_id in IDS)

    command = ("retention", "event", "--event", "last_contact", "--date", "2020-01-01", *IDS)
    await kill_and_complete(stage, command, check)


@pytest.mark.parametrize(
    ("before", "command", "matters", "released"),
    [
        ([], CREATE, None, None),
        ([CREATE], ADD, [MATTER], None),
        ([CREATE, ADD], ("legal-hold", "release", MATTER, "--reason", "settled"), None, "settled"),
    ],
    ids=["create", "add", "release"],
)
async def test_a_command_on_a_legal_hold_that_is_killed_at_any_call_is_completed_by_the_same_command(
    stage: Stage,
    before: list[tuple[str, ...]],
    command: tuple[str, ...],
    matters: list[str] | None,
    released: str | None,
) -> None:
    stage.before += before

    def check() -> None:
        assert [stage.manifest(eval_id).get("matters") for eval_id in IDS] == [matters] * len(IDS)
        (record,) = stage.records("holds/*/matter.json")
        reasons = [record.get(name) for name in ("reason", "release_reason")]
        assert (reasons, bool(record.get("released_at"))) == (["case 17", released], released is not None)

    await kill_and_complete(stage, command, check)
