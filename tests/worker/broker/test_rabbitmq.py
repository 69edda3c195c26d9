"""Celery with RabbitMQ. Some tests run without a server, the others with a real one if it is installed."""

import asyncio
import contextlib
import inspect
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import amqp
import pytest
from amqp import Message
from celery import signals
from pydantic import SecretStr
from redis.asyncio import Redis

from scripts.simulator.options import SimulatorOptions
from scripts.simulator.scenarios import Scenario, eval_id_for
from scripts.simulator.server import Simulator, start_simulator
from tasks.ledger.ledger import Ledger
from tasks.ledger.rejected_messages import RejectedMessages
from tasks.model.job import Queue
from tasks.model.outcome import Outcome
from tasks.queueing.publisher import Publisher
from tests.commands import KEY, Shell, finish
from worker.app import make_publishing_app
from worker.broker.envelope import ARCHIVE_TASK
from worker.broker.rabbitmq import BACKFILL_PREFETCH, RabbitChannel, publisher_options, worker_options
from worker.config.settings import Settings

SECRET = "Erika Mustermann"
GOOD = {"content_type": "application/json", "content_encoding": "utf-8"}
BODY = json.dumps([[], {"eval_ids": ["x"]}, {}])
BAD: list[tuple[Any, dict[str, Any]]] = [
    (SECRET, {}),
    ("[" * 100_000, GOOD),
    (b"\xff\xfe", GOOD | {"application_headers": {"task": ARCHIVE_TASK, "id": "1"}}),
    (BODY, GOOD | {"application_headers": {"task": SECRET, "id": "1"}}),
    (BODY, GOOD | {"application_headers": {"task": ARCHIVE_TASK}}),
]


class OfflineChannel(RabbitChannel):
    """A channel without a connection, which records the methods that it would send."""

    def __init__(self) -> None:
        self.sent: list[tuple[Any, ...]] = []
        self.delivered: list[Message] = []
        self.callbacks = {"tag": self.delivered.append}
        self._checked_consumers = frozenset({"tag"})
        self.no_ack_consumers = set()
        self.cancel_callbacks: dict[str, Any] = {}
        self.auto_encode_decode = False

    def send_method(self, sig: tuple[int, int], _format: str, args: tuple[Any, ...], **_: Any) -> Any:
        self.sent.append((sig, *args))
        return "tag"

    def basic_ack(self, delivery_tag: int, *_: Any) -> None:
        self.sent.append(("ack", delivery_tag))


def prefetch_counts(channel: OfflineChannel) -> list[tuple[int, bool]]:
    """Return each prefetch count that was sent, and whether all consumers share it."""
    return [
        (count, shared)
        for sig, _, count, shared in (method for method in channel.sent if method[0] == amqp.spec.Basic.Qos)
    ]


def test_the_backfill_has_its_own_small_prefetch_count() -> None:
    channel = OfflineChannel()
    channel.basic_qos(0, 72, True)  # noqa: FBT003  # as Celery does
    channel.basic_consume("live")
    channel.basic_consume("backfill")
    channel.basic_consume("live")
    assert prefetch_counts(channel) == [(72, False), (72, False), (BACKFILL_PREFETCH, False), (72, False)]


def test_a_task_message_arrives_with_only_the_headers_that_celery_needs() -> None:
    channel = OfflineChannel()
    headers = {"task": ARCHIVE_TASK, "id": "an ID", "odd": SECRET}
    channel._on_basic_deliver("tag", 7, False, "", "live", Message(BODY, application_headers=headers, **GOOD))  # noqa: FBT003
    (delivered,) = channel.delivered
    assert delivered.properties["application_headers"] == {"task": ARCHIVE_TASK, "id": "an ID"}
    assert delivered.delivery_info["routing_key"] == "live"
    assert channel.sent == []


def test_messages_between_workers_are_not_checked() -> None:
    channel = OfflineChannel()
    delivered: list[object] = []
    channel.callbacks["events"] = delivered.append
    message = Message("{}", **GOOD)
    channel._on_basic_deliver("events", 7, False, "celeryev", "worker.heartbeat", message)  # noqa: FBT003
    assert (delivered, channel.delivered, channel.sent) == ([message], [], [])


@pytest.mark.parametrize(("body", "properties"), BAD, ids=range(len(BAD)))
def test_an_unsuitable_message_is_dropped_and_reported_without_repeating_it(
    body: Any, properties: dict[str, Any]
) -> None:
    channel, reported = OfflineChannel(), []

    def record(exc: Exception, **_: object) -> None:
        reported.append(str(exc))

    signals.task_rejected.connect(record)
    channel._on_basic_deliver("tag", 7, False, "", "live", Message(body, **properties))  # noqa: FBT003
    signals.task_rejected.disconnect(record)
    assert channel.delivered == []
    assert channel.sent == [("ack", 7)]
    assert len(reported) == 1
    assert SECRET not in reported[0]


@pytest.mark.parametrize("option", sorted(worker_options() | publisher_options()))
def test_py_amqp_accepts_every_option(option: str) -> None:
    assert option in inspect.signature(amqp.Connection).parameters


# --- with a real server


@pytest.fixture
async def riskos() -> AsyncIterator[Simulator]:
    async with await start_simulator(SimulatorOptions(api_key=KEY, image_bytes=3_000, latency_ms=200)) as simulator:
        yield simulator


@pytest.fixture
def shell(rabbitmq_url: str, riskos: Simulator, redis: Redis, redis_url: str, tmp_path: Path) -> Shell:
    return Shell(
        tmp_path,
        {
            "DOCV_API_KEY": KEY,
            "DOCV_RISKOS_URL": riskos.url,
            "DOCV_REDIS_URL": redis_url,
            "DOCV_BROKER_URL": rabbitmq_url,
            "DOCV_RATE": "40",
            "DOCV_BACKFILL_SHARE": "1",
            "DOCV_DAILY_QUOTA": "100000",
            "DOCV_LEASE_SECONDS": "2",
        },
    )


def publish_bad_messages(url: str) -> None:
    host = url.partition("@")[2].rstrip("/")
    with amqp.Connection(host) as connection:
        channel = connection.channel()
        for body, properties in BAD:
            channel.basic_publish(Message(body, **properties), routing_key=Queue.LIVE.value)


async def test_every_evaluation_is_processed_with_rabbitmq_if_a_worker_is_killed(
    shell: Shell, redis: Redis, redis_url: str, rabbitmq_url: str
) -> None:
    settings = Settings(redis_url=SecretStr(redis_url), broker_url=SecretStr(rabbitmq_url))
    with contextlib.closing(Publisher(make_publishing_app(settings))) as publisher:
        assert publisher.count_waiting() == {Queue.LIVE: 0, Queue.BACKFILL: 0}
        ids = "\n".join(eval_id_for(Scenario.DOCUMENTED, number) for number in range(120))
        put = await shell.run("enqueue", "--queue", "backfill", "--run", "rabbit", "-", given=ids)
        assert put.code == 0, put.err
        assert publisher.count_waiting() == {Queue.LIVE: 0, Queue.BACKFILL: 120}
        publish_bad_messages(rabbitmq_url)
        ledger = Ledger(redis)
        killed, other = await shell.start("worker"), await shell.start("worker")
        reading = [asyncio.create_task(finish(process)) for process in (killed, other)]
        async with asyncio.timeout(60):
            while (await ledger.runs.get_counters("rabbit")).outcomes[Outcome.ARCHIVED] < 20:
                await asyncio.sleep(0.05)
            killed.kill()
            while (await ledger.runs.get_counters("rabbit")).pending:
                await asyncio.sleep(0.05)
        other.terminate()
        _, finished = await asyncio.gather(*reading)
        outcomes = (await ledger.runs.get_counters("rabbit")).outcomes
        # If a worker is killed between manifest and ledger, another one finds the evaluation unchanged.
        assert outcomes[Outcome.ARCHIVED] + outcomes[Outcome.UNCHANGED] == 120
        assert await RejectedMessages(redis).count() == len(BAD)
        assert finished.code == 0, finished.err
        assert SECRET not in finished.err
        assert publisher.count_waiting() == {Queue.LIVE: 0, Queue.BACKFILL: 0}
