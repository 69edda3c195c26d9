"""`run` and `backfill` check the machine before they start a worker, and show progress until it has started."""

import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from pydantic import SecretStr
from redis.asyncio import Redis

from scripts.local.machine import LocalWorkers, local_workers
from scripts.local.processes import LocalWorker
from scripts.overview.run_watcher import watch_run
from tasks.ledger.ledger import Ledger
from tasks.ledger.worker_registry import WorkerRegistry, make_worker_name
from tasks.model.job import EnqueueOptions, Queue, Trigger
from worker.clients.errors import ServiceUnavailable
from worker.config.settings import Settings, SettingsError


def test_no_worker_starts_if_the_disk_of_the_archive_is_full(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, redis_url: str
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
    settings = Settings(redis_url=SecretStr(redis_url), archive_url=(tmp_path / "archive").as_uri())
    with pytest.raises(ServiceUnavailable, match="only 0 MiB are free"), local_workers(settings):
        pytest.fail("a worker started")


async def test_a_run_reports_that_its_worker_is_starting_until_the_first_heartbeat(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, redis: Redis, redis_url: str, eval_id: str
) -> None:
    slow = tmp_path / "python"
    slow.write_text("#!/bin/sh\nexec sleep 1000\n")
    slow.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(slow))
    await Ledger(redis).accept([eval_id], EnqueueOptions(Queue.BACKFILL, "default", Trigger("run", run="q3")))
    settings = Settings(
        redis_url=SecretStr(redis_url), archive_url=(tmp_path / "archive").as_uri(), state_dir=tmp_path / "state"
    )
    worker = LocalWorker(settings, tmp_path / "worker.log", None)
    try:
        found = watch_run(redis, "q3", worker=LocalWorkers(settings, worker, "default"), patience=0)
        assert (await anext(found)).sentence() == "the worker is starting"
        await WorkerRegistry(redis).heartbeat(make_worker_name(worker.pid), list(Queue))
        assert (await anext(found)).sentence() == "waiting for the first answer"
        await found.aclose()
    finally:
        worker.stop()


def test_no_worker_starts_if_the_schedule_cannot_be_read(tmp_path: Path, redis_url: str) -> None:
    settings = Settings(redis_url=SecretStr(redis_url), retention=tmp_path / "missing.toml")
    with pytest.raises(SettingsError, match="DOCV_RETENTION"), local_workers(settings):
        pytest.fail("a worker started")
