"""A retry holds leases like a worker, so that the two never work on one evaluation at the same time."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from redis.asyncio import Redis

from scripts.erase.erasure import Erased, ErasureRefused, ErasureStores, erase_one
from scripts.erase.files import LocalFiles
from scripts.erase.receipt import ErasureRequest
from scripts.erase.traces import RedisRecords
from scripts.quarantine import retrier as module
from scripts.quarantine.retrier import Retried, Retrier
from tasks.errors import LeaseLost, StorageError
from tasks.ledger.ledger import Ledger
from tasks.model.job import EnqueueOptions, Failure, Queue, Trigger
from tasks.model.outcome import ManifestOutcome, Outcome
from tasks.pipeline import reread as reread_module
from tasks.resilience.holds import ARCHIVE, Holds
from tasks.storage.local_bucket import LocalBucket
from tasks.storage.manifest import Manifest, read_manifest
from tests.scripts.quarantine.conftest import FORGED, GARBAGE, HEALED, NEVER, WHOLE, evaluation
from worker.clients.errors import ServiceUnavailable
from worker.config.accounts import load_accounts
from worker.config.settings import SettingsError, load_settings
from worker.resources import Resources

pytestmark = pytest.mark.both_redises
QUARANTINE, LIVE = Trigger("quarantine"), Trigger("enqueue")
ARCHIVED = Retried(WHOLE, ManifestOutcome.ARCHIVED, has_written=True)
Make = Callable[..., Retrier]


@pytest.fixture
def make(redis: Redis, bucket: LocalBucket, tmp_path: Path) -> Make:
    settings = load_settings(archive_url=(tmp_path / "archive").as_uri())
    resources = Resources({}, redis, tmp_path / "archive", None, None, tmp_path)
    assert bucket

    def make(*, lenient: bool = False) -> Retrier:
        return Retrier(settings, load_accounts(settings).select(None), resources, lenient=lenient)

    return make


def test_a_retry_does_not_start_if_the_schedule_cannot_be_read(redis: Redis, tmp_path: Path) -> None:
    settings = load_settings(archive_url=(tmp_path / "archive").as_uri(), retention=tmp_path / "missing.toml")
    resources = Resources({}, redis, tmp_path / "archive", None, None, tmp_path)
    with pytest.raises(SettingsError, match="DOCV_RETENTION"):
        Retrier(settings, load_accounts(settings).select(None), resources, lenient=False)


@pytest.fixture
async def retrier(make: Make) -> AsyncIterator[Retrier]:
    retrier = make()
    async with retrier.running():
        yield retrier


async def get_manifest(bucket: LocalBucket, eval_id: str) -> Manifest:
    found = await read_manifest(bucket, evaluation(eval_id))
    assert found
    return found.manifest


async def is_ledger_empty(redis: Redis) -> bool:
    """Return whether the ledger is empty."""
    return not await redis.hlen("docv:ledger:entries")


async def test_retry_ends_each_evaluation_and_removes_it_from_the_ledger(retrier: Retrier, redis: Redis) -> None:
    assert await retrier.retry([WHOLE, FORGED, GARBAGE, HEALED, NEVER]) == [
        ARCHIVED,
        Retried(FORGED, ManifestOutcome.UNREADABLE),
        Retried(GARBAGE, ManifestOutcome.UNREADABLE),
        Retried(HEALED, ManifestOutcome.ARCHIVED),
        Retried(NEVER, ManifestOutcome.ARCHIVED),
    ]
    assert await retrier.retry([WHOLE]) == [Retried(WHOLE, ManifestOutcome.ARCHIVED)]
    assert await is_ledger_empty(redis)


async def test_a_lenient_retry_archives_members_that_a_strict_one_refuses(make: Make) -> None:
    assert await make(lenient=True).retry([FORGED, GARBAGE]) == [
        Retried(FORGED, ManifestOutcome.ARCHIVED, has_written=True),
        Retried(GARBAGE, ManifestOutcome.UNREADABLE),
    ]


async def test_concurrent_retries_archive_each_evaluation_once(make: Make, bucket: LocalBucket) -> None:
    one, another = await asyncio.gather(make().retry([WHOLE]), make().retry([WHOLE]))
    assert [each.has_written for each in (*one, *another)].count(True) == 1
    assert (await get_manifest(bucket, WHOLE)).revision == 2


@pytest.mark.parametrize("is_leased", [False, True])
async def test_retry_skips_an_evaluation_that_is_queued_or_leased(
    retrier: Retrier,
    redis: Redis,
    bucket: LocalBucket,
    is_leased: bool,  # noqa: FBT001
) -> None:
    ledger = Ledger(redis)
    await ledger.accept([WHOLE], EnqueueOptions(Queue.LIVE, "default", LIVE, refresh=True))
    if is_leased:
        await ledger.lease([WHOLE], token="a worker")
    (retried,) = await retrier.retry([WHOLE])
    assert retried.problem == module._UNDER_WAY
    assert (await get_manifest(bucket, WHOLE)).revision == 1
    assert await ledger.locate([WHOLE]) == [("leased" if is_leased else "queued", None)]
    if not is_leased:
        (job,) = await ledger.lease([WHOLE], token="a worker")
        assert (job.refresh, job.trigger, job.lost) == (True, LIVE, 0)


async def test_retry_skips_a_dead_letter(retrier: Retrier, redis: Redis) -> None:
    ledger = Ledger(redis)
    await ledger.accept([WHOLE], EnqueueOptions(Queue.LIVE, "default", LIVE))
    (job,) = await ledger.lease([WHOLE], token="a worker")
    await ledger.dead_letter(job, attempts=6, failure=Failure("service_failed"))
    (retried,) = await retrier.retry([WHOLE])
    assert "dead letter" in (retried.problem or "")
    assert (await ledger.locate([WHOLE]))[0][0] == "dead"


async def test_retry_resumes_evaluations_of_a_killed_retry(retrier: Retrier, redis: Redis) -> None:
    options = EnqueueOptions(Queue.BACKFILL, "default", QUARANTINE, without_request=True)
    await Ledger(redis).accept([WHOLE, FORGED], options)
    await Ledger(redis, lease_seconds=0).lease([WHOLE], token="killed")
    assert [each.problem for each in await retrier.retry([WHOLE, FORGED])] == [None, None]
    assert await is_ledger_empty(redis)


async def test_a_refresh_that_is_accepted_during_a_retry_stays_queued_after_it(
    retrier: Retrier, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    reread, ledger = module.reread, Ledger(redis)

    async def accept_and_reread(*args: object) -> object:
        await ledger.accept([WHOLE], EnqueueOptions(Queue.LIVE, "default", LIVE, refresh=True))
        return await reread(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "reread", accept_and_reread)
    assert await retrier.retry([WHOLE]) == [ARCHIVED]
    (job,) = await ledger.lease([WHOLE], token="a worker")
    assert (job.refresh, job.without_request, job.queue) == (True, False, Queue.LIVE)


async def test_an_erasure_wins_over_a_running_retry(
    retrier: Retrier, redis: Redis, bucket: LocalBucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stores = ErasureStores(bucket, LocalFiles(tmp_path / "archive"), RedisRecords(Ledger(redis), patience=0.1))
    erasure = ErasureRequest("request 4711", "operator", "a-host")
    refused: list[object] = []
    commit = reread_module.commit

    async def commit_after_erasure(*args: object) -> Outcome:
        # The documents are stored, and the manifest is about to be committed.
        refused.append(await erase_one(evaluation(WHOLE), erasure, stores))
        return await commit(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(reread_module, "commit", commit_after_erasure)
    assert await retrier.retry([WHOLE]) == [Retried(WHOLE, ManifestOutcome.ERASED)]
    assert isinstance(refused[0], ErasureRefused)
    assert "a worker still has it" in refused[0].why
    assert isinstance(await erase_one(evaluation(WHOLE), erasure, stores), Erased)
    left = {path.name for path in (tmp_path / "archive").glob(f"*/{WHOLE}/**/*") if path.is_file()}
    assert left == {"manifest.json"}
    assert not (tmp_path / "archive" / "quarantine" / "sandbox" / WHOLE).exists()
    assert await is_ledger_empty(redis)


async def test_retry_reports_an_evaluation_when_its_lease_is_lost(
    retrier: Retrier, bucket: LocalBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def lose(*_: object) -> None:
        raise LeaseLost

    monkeypatch.setattr(module, "reread", lose)
    assert (await retrier.retry([WHOLE]))[0].problem == module._UNDER_WAY
    assert (await get_manifest(bucket, WHOLE)).revision == 1


async def test_a_missing_bundle_fails_only_its_evaluation(retrier: Retrier, redis: Redis, tmp_path: Path) -> None:
    [path] = (tmp_path / "archive" / "quarantine" / "sandbox" / FORGED).iterdir()
    path.unlink()
    first, second = await retrier.retry([FORGED, WHOLE])
    assert (second, first.outcome) == (ARCHIVED, None)
    assert "not in quarantine" in (first.problem or "")
    assert await is_ledger_empty(redis)


async def test_a_failing_archive_stops_the_retry_and_releases_its_leases(
    retrier: Retrier, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise StorageError("read", "timeout")

    monkeypatch.setattr(module, "reread", fail)
    with pytest.raises(StorageError):
        await retrier.retry([WHOLE, FORGED])
    assert await is_ledger_empty(redis)


async def test_retry_reads_nothing_while_the_archive_is_on_hold(retrier: Retrier, redis: Redis) -> None:
    await Holds(redis).place_manual(ARCHIVE, "moving")
    with pytest.raises(ServiceUnavailable, match="by_hand"):
        await retrier.retry([WHOLE])
    assert await is_ledger_empty(redis)
