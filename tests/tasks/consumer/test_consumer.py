"""One worker process: a message's evaluations end one by one, and none suffers for another."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError
from structlog.testing import capture_logs

from scripts.simulator.options import SimulatorOptions
from scripts.simulator.scenarios import Scenario, eval_id_for
from scripts.simulator.server import Simulator, start_simulator
from tasks.consumer.consumer import Consumer
from tasks.errors import BadMessage
from tasks.ledger.ledger import Ledger
from tasks.model.job import EnqueueOptions, Queue, Trigger
from tasks.model.outcome import Outcome
from tasks.queueing.message import Message
from tasks.queueing.publisher import Publisher
from tests.faults.own_s3 import own_s3
from worker.app import make_publishing_app
from worker.config.accounts import load_accounts
from worker.config.settings import Settings, load_settings
from worker.resources import open_resources
from worker.runtime import Runtime
from worker.watchdog import Watchdog

KEY = "a-key-of-this-test"


@pytest.fixture
async def riskos() -> AsyncIterator[Simulator]:
    async with await start_simulator(
        SimulatorOptions(api_key=KEY, image_bytes=2_000, slow_seconds=1.0), ["key-of-kyb"]
    ) as simulator:
        yield simulator


@pytest.fixture
def settings(riskos: Simulator, redis_url: str, tmp_path: Path) -> Settings:
    return load_settings(
        api_key=KEY,
        riskos_url=riskos.url,
        redis_url=redis_url,
        archive_url=(tmp_path / "archive").as_uri(),
        rate=500,
        concurrency=4,
    )


def message(*eval_ids: str) -> Message:
    return Message(eval_ids, (), Queue.LIVE, accepted=False, refresh=False, trigger=Trigger("message", run="q3"))


async def work(settings: Settings, given: Message) -> bool:
    """Have a station on this test's own loop work on a message."""
    runtime = Runtime(drain_seconds=1)
    try:
        with closing(Publisher(make_publishing_app(settings))) as publisher:
            async with open_resources(settings, load_accounts(settings)) as resources:
                station = Consumer(settings, load_accounts(settings), resources, runtime, publisher, Watchdog())
                return await station.handle(given)
    finally:
        await asyncio.to_thread(runtime.close)


async def test_every_evaluation_of_a_message_ends_also_when_there_are_more_than_may_be_in_flight(
    settings: Settings, redis: Redis
) -> None:
    eval_ids = [eval_id_for(Scenario.DOCUMENTED, number) for number in range(20)]
    assert await work(settings, message(*eval_ids)) is True
    assert (await Ledger(redis).get_run("q3")).outcomes[Outcome.ARCHIVED] == 20


async def test_one_that_cannot_be_written_down_stops_no_other(
    settings: Settings, redis: Redis, riskos: Simulator
) -> None:
    broken, slow = eval_id_for(Scenario.SLOW_HEADERS, 99), eval_id_for(Scenario.SLOW_HEADERS, 100)
    working = asyncio.create_task(work(settings, message(broken, slow)))
    while {broken, slow} - riskos.stats().by_evaluation.keys():
        await asyncio.sleep(0.01)
    await redis.hset("docv:ledger:entries", broken, "no entry")
    with pytest.raises(RedisError):
        await working
    counters = await Ledger(redis).get_run("q3")
    assert (counters.outcomes[Outcome.ARCHIVED], counters.pending) == (1, 1)


async def test_what_was_delivered_twice_is_worked_on_once(settings: Settings, redis: Redis, riskos: Simulator) -> None:
    eval_id = eval_id_for(Scenario.SLOW_HEADERS, 200)
    await asyncio.gather(work(settings, message(eval_id)), work(settings, message(eval_id)))
    assert riskos.stats().by_evaluation == {eval_id: 1}
    assert (await Ledger(redis).get_run("q3")).total == 1


# -- what an evaluation costs, however quick the machine is


async def test_an_evaluation_of_a_batch_costs_at_most_two_round_trips_to_redis(
    settings: Settings, redis: Redis
) -> None:
    costs = [cost / 50 async for cost in round_trips(settings, redis, Queue.BACKFILL, batch=50, batches=3)]
    assert min(costs) <= 2


async def test_a_live_evaluation_costs_three_round_trips_to_redis_beside_those_of_its_message(
    settings: Settings, redis: Redis
) -> None:
    costs = [cost async for cost in round_trips(settings, redis, Queue.LIVE, batch=1, batches=5)]
    assert min(costs) == 3  # taken, its turn, settled


async def test_an_archived_evaluation_costs_s3_a_request_for_each_document_and_two_for_the_manifest(
    settings: Settings, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    eval_id = eval_id_for(Scenario.DOCUMENTED, 1)
    async with own_s3() as s3:
        for name, value in s3.settings.items():
            monkeypatch.setenv(name, value)
        in_s3 = {"archive_url": s3.settings["DOCV_ARCHIVE_URL"], "s3_endpoint": s3.server.url}
        assert await work(settings.model_copy(update=in_s3), message(eval_id)) is True
        documents = len(json.loads(s3.read(f"sandbox/{eval_id}/manifest.json"))["documents"])
        asked = Counter((heard.method, heard.path.endswith("manifest.json")) for heard in s3.server.heard[1:])
    assert asked == {("GET", True): 1, ("PUT", False): documents, ("PUT", True): 1}


async def round_trips(
    settings: Settings, redis: Redis, queue: Queue, *, batch: int, batches: int
) -> AsyncIterator[int]:
    """Yield what each message costs after the first, for which connections are opened."""
    runtime = Runtime(drain_seconds=1)
    roomy = settings.model_copy(update={"concurrency": 64, "rate": 10_000.0})
    async with open_resources(roomy, load_accounts(roomy)) as resources:
        with closing(Publisher(make_publishing_app(roomy))) as publisher:
            station = Consumer(roomy, load_accounts(roomy), resources, runtime, publisher, Watchdog())
            for number in range(batches + 1):
                eval_ids = [eval_id_for(Scenario.NO_DOCUMENTS, number * batch + each) for each in range(batch)]
                await Ledger(redis).accept(eval_ids, EnqueueOptions(queue, "default", Trigger("enqueue")))
                before = await reads(redis)
                assert await station.handle(replace(message(*eval_ids), queue=queue, accepted=True)) is True
                if number:
                    yield await reads(redis) - before - 1  # without the one that counts
    await asyncio.to_thread(runtime.close)


async def reads(redis: Redis) -> int:
    return int((await redis.info("stats"))["total_reads_processed"])


KYB = """
[kyb]
api_key = "key-of-kyb"
environment = "production"
"""


def with_kyb(settings: Settings, folder: Path) -> Settings:
    file = folder / "accounts.toml"
    file.write_text(KYB)
    return settings.model_copy(update={"accounts": file})


async def test_an_account_that_nobody_here_knows_costs_no_attempt_and_is_told_once(
    settings: Settings, redis: Redis, riskos: Simulator
) -> None:
    eval_ids = [eval_id_for(Scenario.DOCUMENTED, number) for number in range(300, 303)]
    await Ledger(redis).accept(eval_ids, EnqueueOptions(Queue.LIVE, "kyb", Trigger("enqueue", run="q3")))
    with capture_logs() as logs:
        assert await work(settings, replace(message(*eval_ids), accepted=True)) is True
    assert riskos.stats().requests == 0
    assert await Ledger(redis).locate(eval_ids) == [("held", "account_unknown")] * 3
    entries = [json.loads(text) for text in await redis.hvals("docv:ledger:entries")]
    assert {(entry["attempts"], entry.get("suspect")) for entry in entries} == {(0, None)}
    assert [(each["event"], each["account"]) for each in logs if each["log_level"] == "error"] == [
        ("account.unknown", "kyb")
    ]


async def test_the_evaluation_of_a_message_settles_in_the_ledger_before_its_first_request(
    settings: Settings, redis: Redis, riskos: Simulator
) -> None:
    eval_id = eval_id_for(Scenario.DOCUMENTED, 402)
    assert await work(settings, replace(message(eval_id), settle_seconds=60)) is True
    seconds, _ = await redis.time()
    due = await redis.zscore("docv:ledger:parked", eval_id)
    assert due is not None
    assert due / 1000 - seconds == pytest.approx(60, abs=10)
    assert riskos.stats().requests == 0


async def test_a_message_is_accepted_for_the_account_that_it_names(
    settings: Settings, redis: Redis, tmp_path: Path
) -> None:
    eval_id = eval_id_for(Scenario.DOCUMENTED, 400)
    assert await work(with_kyb(settings, tmp_path), replace(message(eval_id), account="kyb")) is True
    manifest = json.loads((tmp_path / "archive" / "production" / eval_id / "manifest.json").read_text())
    assert (manifest["account"], manifest["environment"]) == ("kyb", "production")


@pytest.mark.parametrize(("account", "told"), [("aml", "none that this worker knows"), (None, "it names no account")])
async def test_a_message_that_means_no_account_of_ours_is_none(
    settings: Settings, redis: Redis, tmp_path: Path, account: str | None, told: str
) -> None:
    both = with_kyb(settings, tmp_path).model_copy(update={"api_key": None})
    (tmp_path / "accounts.toml").write_text(KYB + '[another]\napi_key = "key-of-another"')
    given = replace(message(eval_id_for(Scenario.DOCUMENTED, 401)), account=account)
    with pytest.raises(BadMessage, match=told):
        await work(both, given)
    assert (await Ledger(redis).get_run("q3")).total == 0
