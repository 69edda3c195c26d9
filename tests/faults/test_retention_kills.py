"""A command is killed with SIGKILL at each of its calls to the archive; the same command completes it.

In a folder it is killed before a call, and in S3 after a call whose answer it does not receive.
"""

import asyncio
import fnmatch
import json
import random
import shutil
import signal
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from scripts.archive_access.open_bucket import open_archive_bucket
from scripts.archive_access.s3_client import open_s3_archive
from scripts.erase.versions import S3Versions
from tasks.model.evaluation import Evaluation
from tests.archives import eval_ids, fill
from tests.commands import Finished, Shell, finish
from tests.conftest import S3
from tests.faults.check import Archive, BucketArchive, FolderArchive
from tests.faults.proxy import Proxy, proxy_to
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
class Stage(ABC):
    """An archive that is the same before each command.

    Attributes:
        folder: the working directory of commands.
        scale: how many calls are tried.
        figures: adds a line of figures.
        before: commands that precede the killed one.
        events: whether an event has made documents due.
    """

    folder: Path
    scale: Scale
    figures: Callable[[str], None]
    before: list[tuple[str, ...]] = field(default_factory=list)
    events: bool = False

    @property
    @abstractmethod
    def archive(self) -> Archive:
        """The archive as its readers see it."""

    @property
    @abstractmethod
    def settings(self) -> dict[str, str]:
        """The settings of the archive."""

    @abstractmethod
    async def arrange(self) -> None:
        """Restore the archive to its state before the command."""

    @abstractmethod
    async def kill_at(self, call: int, *command: str) -> tuple[Finished, int]:
        """Run a command and kill it at a call, or not if the call is 0; return how many calls it made."""

    @abstractmethod
    def versions(self, pattern: str) -> Collection[str]:
        """Return the keys that match, of all versions."""

    @abstractmethod
    def is_held(self) -> bool:
        """Return whether all of the evaluations are under a matter; fail if only a part is."""

    @property
    def shell(self) -> Shell:
        return Shell(self.folder, {"DOCV_RETENTION": "retention.toml", **self.settings})

    async def make(self) -> None:
        """Archive the evaluations, and run the commands that precede the killed one."""
        self.folder.mkdir(exist_ok=True)
        (self.folder / "retention.toml").write_text(SCHEDULE)
        settings = Settings(
            archive_url=self.settings["DOCV_ARCHIVE_URL"], s3_endpoint=self.settings.get("DOCV_S3_ENDPOINT")
        )
        async with open_archive_bucket(settings) as bucket:
            await fill(bucket, IDS, size=100)
            for eval_id in IDS if self.events else ():
                await RetainedArchive(settings, bucket).report(eval_id, "last_contact", "2020-01-01", "2020-01-02")
        for command in self.before:
            await self.complete(*command)

    async def complete(self, *command: str) -> None:
        """Run a command to its end."""
        finished = await self.shell.run(*command)
        assert finished.code == 0, finished.err

    def manifest(self, eval_id: str) -> dict[str, Any]:
        return dict(json.loads(self.archive.read(f"sandbox/{eval_id}/manifest.json")))

    def records(self, pattern: str) -> list[dict[str, Any]]:
        return [json.loads(self.archive.read(key)) for key in sorted(fnmatch.filter(self.archive.keys(), pattern))]


@dataclass
class FolderStage(Stage):
    """An archive in a folder, and a copy of it."""

    @property
    def archive(self) -> Archive:
        return FolderArchive(self.folder / "archive")

    @property
    def settings(self) -> dict[str, str]:
        return {"DOCV_ARCHIVE_URL": (self.folder / "archive").as_uri()}

    async def arrange(self) -> None:
        copy = self.folder.with_name("copy")
        if not copy.exists():
            # An embedded Redis was used here before, and no worker runs: there is nothing to wait for.
            private = self.folder / ".docv-archive" / "private"
            private.mkdir(0o700, parents=True)
            (private / "redis.users").touch()
            await self.make()
            shutil.copytree(self.folder, copy)
        shutil.rmtree(self.folder)
        shutil.copytree(copy, self.folder)

    async def kill_at(self, call: int, *command: str) -> tuple[Finished, int]:
        count = self.folder / "count"
        variables = {"KILL_AT": str(call), "KILL_FOLDER": str(self.folder / "archive"), "KILL_COUNT": str(count)}
        shell = replace(self.shell, settings=self.shell.settings | variables)
        finished = await finish(await shell.start(*command, module="tests.faults.killed_command"))
        return finished, count.stat().st_size

    def versions(self, pattern: str) -> Collection[str]:
        return fnmatch.filter(self.archive.keys(), pattern)

    def is_held(self) -> bool:
        (held,) = {bool(self.manifest(eval_id).get("matters")) for eval_id in IDS}
        return held


@dataclass(kw_only=True)
class BucketStage(Stage):
    """An archive in S3, below another prefix for each command.

    Attributes:
        s3: the server with the bucket.
        proxy: between the killed command and the server.
    """

    s3: S3
    proxy: Proxy
    number: int = 0

    @property
    def archive(self) -> Archive:
        return BucketArchive(self.s3, f"{self.number}/")

    @property
    def settings(self) -> dict[str, str]:
        # An application waits as long as a worker may write, so these times are as short as possible.
        waits = {"DOCV_LEASE_SECONDS": "2", "DOCV_PUT_SECONDS": "1"}
        return waits | {
            "DOCV_ARCHIVE_URL": f"s3://{self.s3.bucket}/{self.number}",
            "DOCV_S3_ENDPOINT": self.s3.endpoint,
        }

    async def arrange(self) -> None:
        self.number += 1
        await self.make()

    async def kill_at(self, call: int, *command: str) -> tuple[Finished, int]:
        self.proxy.replies, self.proxy.dropped_reply = 0, call or None
        proxied = {"DOCV_S3_ENDPOINT": f"http://127.0.0.1:{self.proxy.port}"}
        process = await replace(self.shell, settings=self.shell.settings | proxied).start(*command)
        self.proxy.on_drop = process.kill
        return await finish(process), self.proxy.replies

    def versions(self, pattern: str) -> Collection[str]:
        pages = self.s3.client.get_paginator("list_object_versions").paginate(
            Bucket=self.s3.bucket, Prefix=f"{self.number}/"
        )
        found = [each["Key"] for page in pages for name in ("Versions", "DeleteMarkers") for each in page.get(name, ())]
        return fnmatch.filter(found, f"{self.number}/{pattern}")

    def is_held(self) -> bool:
        found = open_s3_archive(Settings(archive_url=self.settings["DOCV_ARCHIVE_URL"], s3_endpoint=self.s3.endpoint))
        assert found
        items = [item for eval_id in IDS for item in S3Versions(found).items(Evaluation(eval_id, "sandbox"))]
        named = [
            {"Bucket": self.s3.bucket, "Key": found.prefix + each.key, "VersionId": each.version} for each in items
        ]
        (held,) = {self.s3.client.get_object_legal_hold(**each)["LegalHold"].get("Status") == "ON" for each in named}
        return held


@pytest.fixture(params=["folder", "bucket"])
async def stage(
    request: pytest.FixtureRequest, tmp_path: Path, scale: Scale, figures: Callable[[str], None]
) -> AsyncIterator[Stage]:
    if request.param == "folder":
        yield FolderStage(tmp_path / "here", scale, figures)
        return
    if not scale.long:
        pytest.skip("the short form has an archive in a folder")
    s3: S3 = request.getfixturevalue("s3")
    s3.client.put_bucket_versioning(Bucket=s3.bucket, VersioningConfiguration={"Status": "Enabled"})
    async with proxy_to(int(s3.endpoint.rpartition(":")[2])) as proxy:
        yield BucketStage(tmp_path / "here", scale, figures, s3=s3, proxy=proxy)


async def kill_and_complete(stage: Stage, command: tuple[str, ...], check: Callable[[], None]) -> None:
    """Kill a command at each call, run it again, and check the archive each time."""
    await stage.arrange()
    finished, calls = await stage.kill_at(0, *command)
    assert finished.code == 0, finished.err
    await asyncio.to_thread(check)
    chosen = stage.scale.spread(range(1, calls + 1), random.Random(calls))  # noqa: S311  # not a secret
    killed = 0
    for call in chosen:
        await stage.arrange()
        finished, _ = await stage.kill_at(call, *command)
        killed += finished.code == -signal.SIGKILL
        await stage.complete(*command)
        await asyncio.to_thread(check)
        if stage.scale.long or call == chosen[-1]:
            await stage.complete("verify", "--grace", "0")
    what = f"{' '.join(command[:2])}, {type(stage).__name__.removesuffix('Stage').lower()}"
    stage.figures(f"killed at a call to the archive, {what}: {killed} of {calls} calls, nothing half")
    # The number of calls varies a little: commands poll while they wait, and answers may come in two pieces.
    assert killed >= max(1, len(chosen) - 2)


async def test_an_application_that_is_killed_at_any_call_is_completed_by_the_same_command(
    stage: Stage,
) -> None:
    stage.events = True
    stage.before.append(("retention", "plan", "--out", "plan.jsonl"))

    def check() -> None:
        assert not stage.versions("sandbox/*/selfie/*")
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
    if isinstance(stage, BucketStage):
        lock = {"ObjectLockEnabled": "Enabled"}
        stage.s3.client.put_object_lock_configuration(Bucket=stage.s3.bucket, ObjectLockConfiguration=lock)

    def check() -> None:
        assert stage.is_held() is bool(matters)
        assert [stage.manifest(eval_id).get("matters") for eval_id in IDS] == [matters] * len(IDS)
        (record,) = stage.records("holds/*/matter.json")
        reasons = [record.get(name) for name in ("reason", "release_reason")]
        assert (reasons, bool(record.get("released_at"))) == (["case 17", released], released is not None)

    await kill_and_complete(stage, command, check)
