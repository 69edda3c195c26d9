"""Runs are fed from their lists. Each ID is fed once, and never beyond the backlog of the ledger."""

import asyncio
import json
import shutil
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from pydantic import SecretStr
from redis.asyncio import Redis
from structlog.testing import capture_logs

from tasks.ledger.ledger import Ledger
from tasks.model.evaluation import printable_id
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
    monkeypatch.setattr(module, "_FEED_BATCH", 3)


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
    ledger: Ledger, bucket: LocalBucket, ids: list[str], run: str = "q3", *, refresh: bool = False, **options: Any
) -> RunList:
    fingerprint = f"{UUID(ids[0]).int:064x}"
    source = RunSource(name="ids.txt", fingerprint=fingerprint, ids=len(ids), repeated=0, bad=0)
    kept = await store_run_list(
        bucket, ids, run=run, environment="sandbox", account="default", refresh=refresh, source=source, **options
    )
    await ledger.runs.begin(run, total=len(ids), fingerprint=fingerprint)
    return kept


async def feed_all(feeder: Feeder) -> None:
    while await feeder.feed_once():
        pass


async def lease_ids(ledger: Ledger, ids: list[str]) -> list[str]:
    return [entry.eval_id for entry in await ledger.lease(ids, token="ours")]


async def test_a_run_covers_erasures_before_it_began(feeder: Feeder, ledger: Ledger, bucket: LocalBucket) -> None:
    (eval_id,) = some_ids(1)
    kept = await begin(ledger, bucket, [eval_id], even_if_erased=True)
    begun_at = datetime.fromisoformat(kept.begun_at).timestamp()
    await asyncio.sleep(0.01)
    await feed_all(feeder)
    (job,) = await ledger.lease([eval_id], token="ours")
    assert job.covers_erasure(begun_at - 0.001)
    assert not job.covers_erasure(begun_at)


async def test_a_run_is_fed_completely_and_its_messages_are_published(
    ledger: Ledger, bucket: LocalBucket, feeder: Feeder, redis: Redis
) -> None:
    ids = some_ids(20)
    await begin(ledger, bucket, ids, refresh=True)
    await feed_all(feeder)

    assert await ledger.runs.list_feeding() == []
    entries = await ledger.lease(ids, token="ours")
    assert [entry.eval_id for entry in entries] == ids
    assert {(entry.queue, entry.refresh, entry.trigger.source, entry.trigger.run) for entry in entries} == {
        (Queue.BACKFILL, True, "backfill", "q3")
    }
    assert (await count_backlog(redis)).waiting[Queue.BACKFILL] == 20


async def test_a_run_is_fed_with_its_refresh_outcomes(ledger: Ledger, bucket: LocalBucket, feeder: Feeder) -> None:
    ids = some_ids(2)
    await begin(ledger, bucket, ids, refresh_outcomes=(ManifestOutcome.NOT_FOUND,))
    await feed_all(feeder)
    entries = await ledger.lease(ids, token="ours")
    assert [(entry.refresh, entry.refresh_outcomes) for entry in entries] == [(False, (ManifestOutcome.NOT_FOUND,))] * 2


async def test_a_run_is_fed_with_the_facts_of_its_evaluations(
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


async def test_feeding_stops_at_the_backlog_and_resumes_below_it(
    ledger: Ledger, bucket: LocalBucket, publisher: Publisher
) -> None:
    ids = some_ids(20)
    feeder = Feeder(ledger, publisher, bucket, "sandbox", backlog=5)
    await begin(ledger, bucket, ids)
    await feed_all(feeder)
    assert (await ledger.runs.get_counters("q3")).unfed == 14  # in batches of three, until the ledger has at least five

    for entry in await ledger.lease(ids[:4], token="ours"):
        await ledger.complete(entry, Outcome.UNCHANGED)
    await feed_all(feeder)
    counters = await ledger.runs.get_counters("q3")
    assert (counters.unfed, counters.pending) == (10, 16)  # a chunk ends after seven


async def test_several_workers_feed_each_id_of_a_run_exactly_once(
    ledger: Ledger, bucket: LocalBucket, publisher: Publisher
) -> None:
    ids = some_ids(60)
    await begin(ledger, bucket, ids)
    workers = [Feeder(ledger, publisher, bucket, "sandbox", backlog=1000) for _ in range(3)]
    while await ledger.runs.list_feeding():
        await asyncio.gather(*(feeder.feed_once() for feeder in workers))
    counters = await ledger.runs.get_counters("q3")
    assert (counters.total, counters.states["queued"]) == (60, 60)
    assert await lease_ids(ledger, ids) == ids


async def test_a_worker_that_starts_later_resumes_at_the_position_of_the_run(
    ledger: Ledger, bucket: LocalBucket, publisher: Publisher, feeder: Feeder
) -> None:
    ids = some_ids(20)
    await begin(ledger, bucket, ids)
    await feeder.feed_once()
    await feed_all(Feeder(ledger, publisher, bucket, "sandbox", backlog=100))
    assert await lease_ids(ledger, ids) == ids


async def test_runs_are_fed_in_turn_so_that_a_small_one_does_not_wait(
    ledger: Ledger, bucket: LocalBucket, feeder: Feeder
) -> None:
    await begin(ledger, bucket, some_ids(50), "large")
    await begin(ledger, bucket, some_ids(2), "small")
    await feeder.feed_once()
    assert (await ledger.runs.get_counters("small")).unfed == 0
    assert (await ledger.runs.get_counters("large")).unfed == 47


async def test_a_stopped_run_is_not_fed(ledger: Ledger, bucket: LocalBucket, feeder: Feeder) -> None:
    await begin(ledger, bucket, some_ids(5))
    await ledger.runs.stop_feeding("q3")
    assert not await feeder.feed_once()
    assert (await ledger.runs.get_counters("q3")).unfed == 5


@pytest.mark.parametrize("missing", ["run.json", "piece"])
async def test_a_run_without_its_list_is_logged_and_does_not_stop_the_others(
    ledger: Ledger, bucket: LocalBucket, feeder: Feeder, tmp_path: Path, missing: str
) -> None:
    broken = await begin(ledger, bucket, some_ids(5), "broken")
    await begin(ledger, bucket, some_ids(5), "sound")
    key = "runs/sandbox/broken/run.json" if missing == "run.json" else broken.pieces[0].key
    (tmp_path / "archive" / key).unlink()

    await feed_all(feeder)

    assert (await ledger.runs.get_counters("sound")).unfed == 0
    assert (await ledger.runs.get_counters("broken")).unfed == 5
    assert await ledger.runs.list_feeding() == []


async def test_fed_evaluations_that_could_not_be_published_are_accepted(
    ledger: Ledger, bucket: LocalBucket, tmp_path: Path
) -> None:
    broken = Publisher(make_publishing_app(Settings(redis_url=SecretStr(f"unix://{tmp_path}/missing.sock"))))
    ids = some_ids(5)
    await begin(ledger, bucket, ids)
    with capture_logs() as log:
        await feed_all(Feeder(ledger, broken, bucket, "sandbox", backlog=100))
    assert await lease_ids(ledger, ids) == ids
    assert {(each["event"], each["loop"], each["error"]) for each in log} == {
        ("loop.failed", "feed", "OperationalError")
    }
    broken.close()


async def test_a_run_of_another_environment_is_fed_from_its_own_list(
    ledger: Ledger, bucket: LocalBucket, feeder: Feeder
) -> None:
    """Two environments have a list of the same name, and the ledger records which list the run began with."""
    ours, theirs = some_ids(5), some_ids(5)
    for ids, environment, account in ((ours, "sandbox", "default"), (theirs, "production", "kyb")):
        source = RunSource(name="ids.txt", fingerprint="f" * 64, ids=len(ids), repeated=0, bad=0)
        kept = await store_run_list(
            bucket, ids, run="q3", environment=environment, account=account, refresh=False, source=source
        )
    await ledger.runs.begin("q3", total=len(theirs), fingerprint=kept.fingerprint, account="kyb")
    await feed_all(feeder)
    assert [entry.account for entry in await ledger.lease(theirs, token="ours")] == ["kyb"] * 5
    assert await lease_ids(ledger, ours) == []


async def test_the_last_fed_evaluations_are_published_by_the_next_call_or_by_publish(
    ledger: Ledger, bucket: LocalBucket, feeder: Feeder, redis: Redis
) -> None:
    await begin(ledger, bucket, some_ids(20))
    published = []
    for step in (feeder.feed_once, feeder.feed_once, feeder.publish, feeder.publish):
        await step()
        published.append((await count_backlog(redis)).waiting[Queue.BACKFILL])
    assert published == [0, 3, 6, 6]
    assert (await ledger.runs.get_counters("q3")).unfed == 14


async def test_the_position_of_a_run_is_read_once_while_feeding_continues(
    ledger: Ledger, bucket: LocalBucket, feeder: Feeder, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    get_position = ledger.runs.get_position

    async def count_call(run: str) -> int:
        read.append(run)
        return await get_position(run)

    monkeypatch.setattr(ledger.runs, "get_position", count_call)
    await begin(ledger, bucket, some_ids(20))
    await feed_all(feeder)
    assert read == ["q3"]
    assert (await ledger.runs.get_counters("q3")).unfed == 0


@pytest.mark.parametrize(
    "wrong",
    [
        lambda kept: {"source": kept.source.model_copy(update={"ids": 5})},
        lambda _: {"run": "q5"},
        lambda _: {"environment": "production"},
        lambda kept: {"pieces": (kept.pieces[0].model_copy(update={"key": "runs/sandbox/q4/x"}),)},
    ],
    ids=["a wrong number of IDs", "another run", "another environment", "a piece of another run"],
)
async def test_an_inconsistent_list_is_logged_and_does_not_stop_the_others(
    ledger: Ledger, bucket: LocalBucket, feeder: Feeder, tmp_path: Path, wrong: Callable[[RunList], dict[str, Any]]
) -> None:
    ids, others, root = some_ids(4), some_ids(4), tmp_path / "archive"
    kept = await begin(ledger, bucket, ids, run="q3")
    await begin(ledger, bucket, others, run="q4")
    (root / "runs/sandbox/q3/run.json").write_bytes(kept.model_copy(update=wrong(kept)).as_json())
    with capture_logs() as log:
        await feed_all(feeder)
    assert [(line["event"], line["run"]) for line in log] == [("run.list_unusable", "q3")]
    assert await lease_ids(ledger, others) == others


async def test_an_unexpected_error_of_a_list_does_not_stop_the_others(
    ledger: Ledger, bucket: LocalBucket, feeder: Feeder, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids, others = some_ids(4), some_ids(4)
    await begin(ledger, bucket, ids, run="q3")
    await begin(ledger, bucket, others, run="q4")
    open_list = feeder._open

    async def fail(name: str) -> Any:
        if name == "q3":
            raise RuntimeError
        return await open_list(name)

    monkeypatch.setattr(feeder, "_open", fail)
    with pytest.raises(RuntimeError):
        await feed_all(feeder)
    assert await lease_ids(ledger, others) == others


async def test_a_list_of_a_newer_release_is_fed_and_keeps_its_fields(
    ledger: Ledger, bucket: LocalBucket, feeder: Feeder, tmp_path: Path
) -> None:
    ids, root = some_ids(2), tmp_path / "archive"
    kept = await begin(ledger, bucket, ids)
    path = root / "runs/sandbox/q3/run.json"
    newer = json.loads(kept.as_json()) | {"colour": "green", "refresh_outcomes": ["not_found", "withdrawn"]}
    path.write_text(json.dumps(newer))
    await feed_all(feeder)
    (job, _) = await ledger.lease(ids, token="ours")
    assert job.refresh_outcomes == ("not_found", "withdrawn")
    found = await run_list.read_run_list(bucket, "sandbox", "q3")
    assert found
    await run_list.mark_cancelled(bucket, found, by="someone", position=2)
    written = json.loads(path.read_text())
    assert (written["colour"], written["refresh_outcomes"]) == ("green", ["not_found", "withdrawn"])
    assert written["cancelled_by"] == "someone"


async def test_a_run_whose_name_points_outside_the_archive_is_not_fed(
    ledger: Ledger, bucket: LocalBucket, feeder: Feeder, tmp_path: Path
) -> None:
    ids, name, path = some_ids(3), "../../../outside", tmp_path / "outside/run.json"
    kept = await begin(ledger, bucket, ids, even_if_erased=True)
    await ledger.runs.stop_feeding("q3")
    await ledger.runs.begin(name, total=3, fingerprint=kept.fingerprint)
    key = f"runs/sandbox/{name}/{kept.pieces[0].sha256}.txt.gz"
    outside = kept.model_copy(update={"run": name, "pieces": (kept.pieces[0].model_copy(update={"key": key}),)})
    path.parent.mkdir()
    path.write_bytes(outside.as_json())
    shutil.copy(tmp_path / "archive" / kept.pieces[0].key, path.parent)
    with capture_logs() as log:
        await feed_all(feeder)
    assert await lease_ids(ledger, ids) == []
    assert name not in await ledger.runs.list_feeding()
    assert ("run.list_unusable", printable_id(name)) in [(line["event"], line["run"]) for line in log]
