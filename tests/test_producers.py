"""The examples of docs/producers.md work as written."""

import asyncio
import base64
import json
import os
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from scripts.serve.api.event import _CHANGED
from tasks.ledger.ledger import Ledger
from tasks.model.job import Job, Queue
from tasks.model.outcome import Outcome
from tasks.queueing.message import read_message
from tasks.storage.local_bucket import LocalBucket
from tests.archives import archive
from tests.scripts.serve.conftest import INTAKE, RECORDS, Client, running_client, settings_for
from worker.broker.redis_transport import broker_transport_url

PAGE = (Path(__file__).parents[1] / "docs" / "producers.md").read_text("utf-8")
BLOCKS = re.findall(r"^```(python|bash)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
EVAL_ID = "0b54a4d4-6e5b-4f3c-9d2a-7c1f0e8b9a10"


def example(word: str) -> str:
    """Return the one example that contains a word."""
    (found,) = (code for _, code in BLOCKS if word in code)
    return found


async def run(*command: str, **environment: str) -> str:
    """Run a command as a producer does; return its output."""
    process = await asyncio.create_subprocess_exec(
        *command,
        env={"PATH": os.environ["PATH"], **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, err.decode()
    return out.decode()


async def lease_evaluation(redis: Redis) -> Job:
    (entry,) = await Ledger(redis).lease([EVAL_ID], token="t")
    return entry


@pytest.fixture
async def client(redis: Redis, redis_url: str, tmp_path: Path) -> AsyncIterator[Client]:
    async with running_client(settings_for(redis_url, tmp_path)) as client:
        yield client


def test_the_page_has_no_other_examples() -> None:
    assert [language for language, _ in BLOCKS] == ["bash", "python", "bash", "python"]


async def test_the_example_with_celery_enqueues_evaluations(redis: Redis, redis_url: str) -> None:
    await run(sys.executable, "-c", example("send_task"), ARCHIVER_BROKER=broker_transport_url(redis_url))
    (raw,) = await redis.lrange("docv:live", 0, -1)
    envelope = json.loads(raw)
    positional, arguments, _ = json.loads(base64.b64decode(envelope["body"]))
    assert envelope["headers"]["task"] == "docv.archive"
    message = read_message(envelope["properties"]["delivery_info"]["routing_key"], positional, arguments)
    assert (message.eval_ids, message.queue, message.accepted) == ((EVAL_ID,), Queue.LIVE, False)
    assert (message.trigger.source, message.trigger.run) == ("message", "onboarding")


async def test_the_example_with_python_submits_evaluations_over_http(client: Client, redis: Redis) -> None:
    out = await run(*(sys.executable, "-c", example("urllib.request")), ARCHIVER_URL=client.url, ARCHIVER_TOKEN=INTAKE)
    assert out == "{'accepted': 1, 'repeated': 0, 'under_way': 0, 'bad': []}\n"
    entry = await lease_evaluation(redis)
    assert (entry.queue, entry.trigger.source, entry.trigger.run) == (Queue.BACKFILL, "intake", "2026-q3")


@pytest.mark.needs("curl")
async def test_the_example_with_curl_can_be_repeated(client: Client, redis: Redis) -> None:
    outputs = [
        await run("bash", "-euc", example("Idempotency-Key"), ARCHIVER_URL=client.url, ARCHIVER_TOKEN=INTAKE)
        for _ in range(2)
    ]
    assert outputs[0] == outputs[1] == '{"accepted":1,"repeated":0,"under_way":0,"bad":[]}'
    entry = await lease_evaluation(redis)
    assert (entry.queue, entry.trigger.run) == (Queue.LIVE, "onboarding")


@pytest.mark.needs("curl")
async def test_the_example_of_an_event_can_be_repeated(redis_url: str, redis: Redis, tmp_path: Path) -> None:
    assert redis
    (tmp_path / "retention.toml").write_text('[[rule]]\nname = "a"\nkeep_for = "5y"\nclock = "relationship_ended"\n')
    await archive(LocalBucket(tmp_path / "archive"), EVAL_ID, Outcome.NO_DOCUMENTS)
    async with running_client(settings_for(redis_url, tmp_path, retention=tmp_path / "retention.toml")) as client:
        variables = {"ARCHIVER_URL": client.url, "RECORDS_TOKEN": RECORDS}
        outputs = [json.loads(await run("bash", "-euc", example("relationship_ended"), **variables)) for _ in range(2)]
    assert [each["recorded"] for each in outputs] == [True, False]
    assert outputs[0]["date"] == "2026-01-31"


def test_the_page_documents_exactly_the_event_types_of_the_code() -> None:
    table = PAGE.split("| event |")[1].split("\n\n")[0]
    assert set(re.findall(r"^\| `(\w+)`", table, re.MULTILINE)) == set(_CHANGED)
