"""Archives in a folder and in a bucket with Object Lock, and commands that run in this process."""

import asyncio
import contextlib
import inspect
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from click.testing import CliRunner, Result

from scripts.archive_access.s3_client import open_s3_archive
from scripts.cli import main
from scripts.erase.erasure import ErasureResult, ErasureStores, erase_one
from scripts.erase.files import LocalFiles
from scripts.erase.receipt import ErasureRequest
from scripts.erase.stock import ObjectVersions
from scripts.erase.traces import RedisRecords
from scripts.erase.versions import S3Versions
from scripts.legal_hold.opening import HoldStores, open_hold_stores
from tasks.model.evaluation import Evaluation
from tasks.model.outcome import Outcome
from tasks.storage.bucket import Bucket
from tasks.storage.manifest import Manifest, read_manifest
from tasks.storage.matter import AdditionRecord, MatterRecord, read_additions, read_matter
from tasks.storage.open_bucket import open_bucket
from tests.archives import archive, documents
from tests.conftest import S3
from tests.retention import answer_lock_requests
from worker.clients.archive import open_archive
from worker.config.settings import Settings


class SimulatedCrash(Exception):
    """The simulated end of the process."""


class CrashingWrapper:
    """A wrapper that simulates a crash at the nth call of all wrappers that share its countdown."""

    def __init__(self, wrapped: Any, countdown: Iterator[int]) -> None:
        self._wrapped, self._countdown = wrapped, countdown

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._wrapped, name)
        if not callable(method):
            return method

        async def later(*arguments: Any, **named: Any) -> Any:
            self._count()
            return await method(*arguments, **named)

        def now(*arguments: Any, **named: Any) -> Any:
            self._count()
            return method(*arguments, **named)

        return later if inspect.iscoroutinefunction(method) else now

    def _count(self) -> None:
        if next(self._countdown) <= 0:
            raise SimulatedCrash


@dataclass(frozen=True)
class HoldArchive:
    """An archive, and commands that use it.

    Attributes:
        settings: settings of the commands.
        s3: the bucket; None if the archive is a folder.
        monkeypatch: changes the commands.
    """

    settings: Settings
    s3: S3 | None
    monkeypatch: pytest.MonkeyPatch

    @property
    def bucket(self) -> Bucket:
        return open_bucket(open_archive(self.settings))

    def run(self, *arguments: str, given: str = "") -> Result:
        """Run a command in this process."""
        return CliRunner().invoke(main, arguments, input=given)

    def run_ok(self, *arguments: str, given: str = "") -> Result:
        """Run a command that has to succeed."""
        result = self.run(*arguments, given=given)
        assert result.exit_code == 0, (result.output, result.exception)
        return result

    def fill(self, eval_id: str = "") -> str:
        """Archive an evaluation with a document and a bundle in quarantine; return its ID."""
        eval_id = eval_id or str(uuid4())
        asyncio.run(archive(self.bucket, eval_id, Outcome.UNREADABLE, documents(eval_id, 1, 100)[:1]))
        return eval_id

    def erase(self, eval_id: str) -> ErasureResult:
        """Erase an evaluation that no worker can write to."""
        versions: ObjectVersions = LocalFiles(Path("archive"))
        if found := open_s3_archive(self.settings):
            found.client.meta.events.register("before-send.s3.GetObjectRetention", answer_lock_requests({}))
            versions = S3Versions(found)
        stores = ErasureStores(self.bucket, versions, RedisRecords(None))
        request = ErasureRequest("request 4711", "operator", "a-host")
        return asyncio.run(erase_one(Evaluation(eval_id, "sandbox"), request, stores))

    def manifest(self, eval_id: str) -> Manifest | None:
        found = asyncio.run(read_manifest(self.bucket, Evaluation(eval_id, "sandbox")))
        return found.manifest if found else None

    def matters(self, eval_id: str) -> tuple[str, ...]:
        manifest = self.manifest(eval_id)
        assert manifest
        return manifest.matters

    def record(self, matter: str) -> MatterRecord:
        record = asyncio.run(read_matter(self.bucket, matter))
        assert record
        return record

    def additions(self, matter: str) -> list[AdditionRecord]:
        async def read() -> list[AdditionRecord]:
            return [each async for each in read_additions(self.bucket, matter, "sandbox")]

        return asyncio.run(read())

    def statuses(self, eval_id: str) -> set[str]:
        """Return the statuses of S3's legal holds on all versions of an evaluation; nothing in a folder."""
        found = open_s3_archive(self.settings)
        if found is None or self.s3 is None:
            return set()
        statuses = set()
        for item in S3Versions(found).items(Evaluation(eval_id, "sandbox")):
            version = {"Bucket": self.s3.bucket, "Key": found.prefix + item.key, "VersionId": item.version}
            statuses.add(self.s3.client.get_object_legal_hold(**version)["LegalHold"].get("Status", "NONE"))
        return statuses

    def is_held(self, eval_id: str, *matters: str) -> bool:
        """Return whether all of an evaluation is under these matters, and under no other one."""
        wanted = ({"ON"} if matters else {"OFF"}) if self.s3 else set()
        return self.matters(eval_id) == matters and self.statuses(eval_id) == wanted

    def cut_off(self, module: str, calls: int) -> None:
        """End the process of a command at the nth call of the archive from now on; -1 for never."""
        countdown = iter(range(calls, -1_000_000, -1)) if calls >= 0 else iter([1] * 1_000_000)

        @contextlib.asynccontextmanager
        async def opened(settings: Settings) -> AsyncIterator[HoldStores]:
            async with open_hold_stores(settings) as stores:
                s3 = stores.s3 and replace(stores.s3, client=CrashingWrapper(stores.s3.client, countdown))
                yield HoldStores(CrashingWrapper(stores.bucket, countdown), s3)  # type: ignore[arg-type]

        self.monkeypatch.setattr(f"scripts.legal_hold.{module}.open_hold_stores", opened)


@pytest.fixture
def locked(s3: S3) -> S3:
    """A bucket with Object Lock."""
    s3.client.put_bucket_versioning(Bucket=s3.bucket, VersioningConfiguration={"Status": "Enabled"})
    s3.client.put_object_lock_configuration(Bucket=s3.bucket, ObjectLockConfiguration={"ObjectLockEnabled": "Enabled"})
    return s3


def open_holds(url: str, s3: S3 | None, monkeypatch: pytest.MonkeyPatch) -> HoldArchive:
    """Return the archive at a URL, and make commands in this process use it."""
    monkeypatch.setenv("DOCV_ARCHIVE_URL", url)
    monkeypatch.setenv("DOCV_ACTOR", "operator")
    # The pause protects a process that ends after its command, but this process goes on.
    monkeypatch.setattr("scripts.archive_access.open_bucket.CLOSE_SECONDS", 0)
    if s3:
        monkeypatch.setenv("DOCV_S3_ENDPOINT", s3.endpoint)
    return HoldArchive(Settings(archive_url=url, s3_endpoint=s3.endpoint if s3 else None), s3, monkeypatch)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HoldArchive:
    """An archive in a folder."""
    return open_holds((tmp_path / "archive").as_uri(), None, monkeypatch)


@pytest.fixture
def bucket(locked: S3, monkeypatch: pytest.MonkeyPatch) -> HoldArchive:
    """An archive in a bucket with Object Lock."""
    return open_holds(f"s3://{locked.bucket}/kept/here", locked, monkeypatch)


@pytest.fixture(params=["folder", "bucket"])
def held(request: pytest.FixtureRequest) -> HoldArchive:
    """An archive in a folder, and one in a bucket with Object Lock."""
    archive: HoldArchive = request.getfixturevalue(request.param)
    return archive
