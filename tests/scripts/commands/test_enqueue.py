"""IDs are put on a queue, and what the command says of it is so."""

import json
from pathlib import Path
from uuid import uuid4

import pytest
from redis.asyncio import Redis

from tasks.ledger.ledger import Ledger
from tasks.model.job import Queue
from tasks.model.outcome import ManifestOutcome
from tests.commands import KEY, Shell


@pytest.fixture
def shell(redis: Redis, redis_url: str, tmp_path: Path) -> Shell:
    return Shell(tmp_path, {"DOCV_REDIS_URL": redis_url, "DOCV_API_KEY": KEY})


async def test_ids_from_standard_input_are_on_the_queue_and_in_the_ledger(shell: Shell, redis: Redis) -> None:
    ids = [str(uuid4()) for _ in range(150)]
    finished = await shell.run("enqueue", "-", "--queue", "backfill", "--run", "q3", "--json", given="\n".join(ids))
    assert json.loads(finished.out) == {
        "accepted": 150,
        "published": 150,
        "refused": 0,
        "queue": "backfill",
        "run": "q3",
    }
    messages = await redis.lrange("docv:backfill", 0, -1)
    assert all(KEY not in message for message in messages)
    assert (await Ledger(redis).get_stats()).queued[Queue.BACKFILL] == 150
    assert (await Ledger(redis).get_run("q3")).pending == 150


async def test_what_is_under_way_already_is_not_queued_twice(shell: Shell, redis: Redis) -> None:
    eval_id = str(uuid4())
    assert (await shell.run("enqueue", eval_id)).out == "1 accepted on the queue live\n"
    again = await shell.run("enqueue", eval_id)
    assert again.out == "1 accepted on the queue live, 1 of them were under way already\n"
    assert await redis.llen("docv:live") == 1


async def test_what_has_just_been_completed_waits_in_redis_before_its_first_request(shell: Shell, redis: Redis) -> None:
    shell.settings["DOCV_SETTLE_SECONDS"] = "30"
    finished = await shell.run("enqueue", str(uuid4()), "--settle")
    assert finished.out == "1 accepted; their first request waits 30 s\n"
    census = await Ledger(redis).get_stats()
    assert (census.parked, await redis.llen("docv:live")) == (1, 0)
    assert census.next_due is not None
    assert 15 < census.next_due <= 30


async def test_outcomes_to_refresh_are_in_the_ledger(shell: Shell, redis: Redis) -> None:
    eval_id = str(uuid4())
    assert (await shell.run("enqueue", eval_id, "--refresh-outcome", "rejected,no_documents")).code == 0
    (job,) = await Ledger(redis).lease([eval_id], token="a-token")
    assert (job.refresh, job.refresh_outcomes) == (False, (ManifestOutcome.NO_DOCUMENTS, ManifestOutcome.REJECTED))


async def test_a_bad_id_is_named_and_the_others_are_accepted(shell: Shell) -> None:
    finished = await shell.run("enqueue", "-", given=f"{uuid4()}\n{{no-id}}\n")
    assert finished.code == 1
    assert finished.out == "1 accepted on the queue live\n"
    assert "standard input, line 2: '{no-id}' is no evaluation ID" in finished.err


async def test_a_run_without_a_proper_name_is_refused_before_anything_is_accepted(shell: Shell, redis: Redis) -> None:
    finished = await shell.run("enqueue", str(uuid4()), "--run", "no name")
    assert finished.code == 2
    assert "the name of a run has" in finished.err
    assert not await redis.keys("docv:*")
