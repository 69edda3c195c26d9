"""Runs are fed from their lists: all of it, each ID once, and never more than the ledger is to hold."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from pydantic import SecretStr
from redis.asyncio import Redis

from tasks.ledger.ledger import Ledger
from tasks.model.evidence import EvaluationFacts
from tasks.model.job import Queue
from tasks.model.outcome import Evidence, ManifestOutcome, Outcome
from tasks.queueing import feeder as module
from tasks.queueing.feeder import Feeder
from tasks.queueing.publisher import Publisher, count_backlog
from tasks.storage import run_list
from tasks.storage.local_bucket import LocalBucket
from tasks.storage.run_list import RunList, RunSource, store_run_list
from worker.app import make_publishing_app
from worker.config.settings import Settings


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_list, "CHUNK_SIZE", 7)
    monkeypatch.setattr(module, "_AT_ONCE", 3)


@pytest.fixture
def ledger(redis: Redis) -> Ledger:
    return Ledger(redis)


@pytest.fixture
def bucket(tmp_path: Path) -> LocalBucket:
    return LocalBucket(tmp_path / "archive")


@pytest.fixture
def publisher(redis_url: str) -> Iterator[Publisher]:
    publisher = Publisher(make_publishing_app(Settings(redis_url=SecretStr(redis_url))))
    yield publisher
    publisher.close()


@pytest.fixture
def feeder(ledger: Ledger, publisher: Publisher, bucket: LocalBucket) -> Feeder:
    return Feeder(ledger, publisher, bucket, "sandbox", backlog=100)


def some_ids(count: int) -> list[str]:
    return [str(uuid4()) for _ in range(count)]


async def begin(
    ledger: Ledger, bucket: LocalBucket, ids: list[str], run: str = "q3", *, refresh: bool = False, **wanted: Any
) -> RunList:
    fingerprint = f"{UUID(ids[0]).int:064x}"
    source = RunSource(name="ids.txt", fingerprint=fingerprint, ids=len(ids), repeated=0, bad=0)
    kept = await store_run_list(
        bucket, ids, run=run, environment="sandbox", account="default", refresh=refresh, source=source, **wanted
    )
    await ledger.begin_run(run, total=len(ids), fingerprint=fingerprint)
    return kept


async def feed_all(feeder: Feeder) -> None:
    while await feeder.feed_once():
        pass


async def taken(ledger: Ledger, ids: list[str]) -> list[str]:
    return [entry.eval_id for entry in await ledger.lease(ids, token="ours")]


async def test_a_run_is_fed_whole_and_its_messages_are_in_the_queue(
    ledger: Ledger, bucket: LocalBucket, feeder: Feeder, redis: Redis
) -> None:
    ids = some_ids(20)
    await begin(ledger, bucket, ids, refresh=True)
    await feed_all(feeder)

    assert await ledger.list_feeding() == []
    entries = await ledger.lease(ids, token="ours")
    assert [entry.eval_id for entry in entries] == ids
    assert {(entry.queue, entry.refresh, entry.trigger.source, entry.trigger.run) for entry in entries} == {
        (Queue.BACKFILL, True, "backfill", "q3")
    }
    assert (await count_backlog(redis)).waiting[Queue.BACKFILL] == 20


async def test_a_run_is_fed_with_its_outcomes_to_refresh(ledger: Ledger, bucket: LocalBucket, feeder: Feeder) -> None:
    ids = some_ids(2)
    await begin(ledger, bucket, ids, refresh_outcomes=(ManifestOutcome.NOT_FOUND,))
    await feed_all(feeder)
    entries = await ledger.lease(ids, token="ours")
    assert [(entry.refresh, entry.refresh_outcomes) for entry in entries] == [(False, (ManifestOutcome.NOT_FOUND,))] * 2


async def test_a_run_is_fed_with_what_is_known_of_its_evaluations(
    ledger: Ledger, bucket: LocalBucket, feeder: Feeder
) -> None:
    ids = some_ids(9)
    facts = [
        EvaluationFacts((Evidence.UNDER_AGE,), 5.5) if number % 4 == 3 else EvaluationFacts() for number in range(9)
    ]
    await begin(ledger, bucket, ids, facts=facts)
    await feed_all(feeder)
    jobs = await ledger.lease(ids, token="ours")
    assert [EvaluationFacts(job.evidence, job.event_at) for job in jobs] == facts


async def test_it_is_fed_no_more_than_the_ledger_is_to_hold_and_goes_on_when_there_is_room(
    ledger: Ledger, bucket: LocalBucket, publisher: Publisher
) -> None:
    ids = some_ids(20)
    feeder = Feeder(ledger, publisher, bucket, "sandbox", backlog=5)
    await begin(ledger, bucket, ids)
    await feed_all(feeder)
    assert (await ledger.get_run("q3")).unfed == 14  # threes, until there are five

    for entry in await ledger.lease(ids[:4], token="ours"):
        await ledger.complete(entry, Outcome.UNCHANGED)
    await feed_all(feeder)
    counters = await ledger.get_run("q3")
    assert (counters.unfed, counters.pending) == (10, 16)  # a piece ends after seven


async def test_two_workers_feed_a_run_without_losing_or_repeating_any_of_it(
    ledger: Ledger, bucket: LocalBucket, publisher: Publisher
) -> None:
    ids = some_ids(60)
    await begin(ledger, bucket, ids)
    workers = [Feeder(ledger, publisher, bucket, "sandbox", backlog=1000) for _ in range(3)]
    while await ledger.list_feeding():
        await asyncio.gather(*(feeder.feed_once() for feeder in workers))
    counters = await ledger.get_run("q3")
    assert (counters.total, counters.states["queued"]) == (60, 60)
    assert await taken(ledger, ids) == ids


async def test_a_worker_that_starts_later_goes_on_where_the_run_is(
    ledger: Ledger, bucket: LocalBucket, publisher: Publisher, feeder: Feeder
) -> None:
    ids = some_ids(20)
    await begin(ledger, bucket, ids)
    await feeder.feed_once()
    await feed_all(Feeder(ledger, publisher, bucket, "sandbox", backlog=100))
    assert await taken(ledger, ids) == ids


async def test_runs_take_turns_so_that_a_small_one_does_not_wait_for_a_large_one(
    ledger: Ledger, bucket: LocalBucket, feeder: Feeder
) -> None:
    await begin(ledger, bucket, some_ids(50), "large")
    await begin(ledger, bucket, some_ids(2), "small")
    await feeder.feed_once()
    assert (await ledger.get_run("small")).unfed == 0
    assert (await ledger.get_run("large")).unfed == 47


async def test_a_run_that_was_stopped_is_not_fed(ledger: Ledger, bucket: LocalBucket, feeder: Feeder) -> None:
    await begin(ledger, bucket, some_ids(5))
    await ledger.stop_feeding("q3")
    assert not await feeder.feed_once()
    assert (await ledger.get_run("q3")).unfed == 5


@pytest.mark.parametrize("what", ["run.json", "piece"])
async def test_a_run_whose_list_is_gone_is_told_of_and_does_not_hinder_the_others(
    ledger: Ledger, bucket: LocalBucket, feeder: Feeder, tmp_path: Path, what: str
) -> None:
    broken = await begin(ledger, bucket, some_ids(5), "broken")
    await begin(ledger, bucket, some_ids(5), "sound")
    key = "runs/sandbox/broken/run.json" if what == "run.json" else broken.pieces[0].key
    (tmp_path / "archive" / key).unlink()

    await feed_all(feeder)

    assert (await ledger.get_run("sound")).unfed == 0
    assert (await ledger.get_run("broken")).unfed == 5
    assert await ledger.list_feeding() == []


async def test_what_could_not_be_published_is_accepted_all_the_same(
    ledger: Ledger, bucket: LocalBucket, tmp_path: Path
) -> None:
    broken = Publisher(make_publishing_app(Settings(redis_url=SecretStr(f"unix://{tmp_path}/nobody.sock"))))
    ids = some_ids(5)
    await begin(ledger, bucket, ids)
    await feed_all(Feeder(ledger, broken, bucket, "sandbox", backlog=100))
    assert await taken(ledger, ids) == ids
    broken.close()


async def test_a_run_of_another_environment_is_fed_from_its_own_list(
    ledger: Ledger, bucket: LocalBucket, feeder: Feeder
) -> None:
    """Two lists have one name, each in its environment; the ledger knows which of them it began."""
    ours, theirs = some_ids(5), some_ids(5)
    for ids, environment, account in ((ours, "sandbox", "default"), (theirs, "production", "kyb")):
        source = RunSource(name="ids.txt", fingerprint="f" * 64, ids=len(ids), repeated=0, bad=0)
        kept = await store_run_list(
            bucket, ids, run="q3", environment=environment, account=account, refresh=False, source=source
        )
    await ledger.begin_run("q3", total=len(theirs), fingerprint=kept.fingerprint, account="kyb")
    await feed_all(feeder)
    assert [entry.account for entry in await ledger.lease(theirs, token="ours")] == ["kyb"] * 5
    assert await taken(ledger, ours) == []


async def test_what_was_fed_last_is_published_with_the_next_or_by_who_does_not_go_on(
    ledger: Ledger, bucket: LocalBucket, feeder: Feeder, redis: Redis
) -> None:
    await begin(ledger, bucket, some_ids(20))
    published = []
    for step in (feeder.feed_once, feeder.feed_once, feeder.publish, feeder.publish):
        await step()
        published.append((await count_backlog(redis)).waiting[Queue.BACKFILL])
    assert published == [0, 3, 6, 6]
    assert (await ledger.get_run("q3")).unfed == 14


async def test_who_goes_on_feeding_asks_only_once_how_far_the_run_is(
    ledger: Ledger, bucket: LocalBucket, feeder: Feeder, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    fed = ledger.get_position

    async def counted(run: str) -> int:
        asked.append(run)
        return await fed(run)

    monkeypatch.setattr(ledger, "get_position", counted)
    await begin(ledger, bucket, some_ids(20))
    await feed_all(feeder)
    assert asked == ["q3"]
    assert (await ledger.get_run("q3")).unfed == 0
