"""`enqueue` accepts IDs into the ledger, and reports how many it accepted."""

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


async def test_ids_from_standard_input_are_queued_and_in_the_ledger(shell: Shell, redis: Redis) -> None:
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
    assert (await Ledger(redis).runs.get_counters("q3")).pending == 150


async def test_an_evaluation_in_flight_is_not_queued_twice(shell: Shell, redis: Redis) -> None:
    eval_id = str(uuid4())
    assert (await shell.run("enqueue", eval_id)).out == "1 accepted on the queue live\n"
    again = await shell.run("enqueue", eval_id)
    assert again.out == "1 accepted on the queue live, 1 of them was under way already\n"
    assert await redis.llen("docv:live") == 1


async def test_a_recent_evaluation_waits_in_redis_before_its_first_request(shell: Shell, redis: Redis) -> None:
    shell.settings["DOCV_SETTLE_SECONDS"] = "30"
    finished = await shell.run("enqueue", str(uuid4()), "--settle")
    assert finished.out == "1 accepted; their first request waits 30 s\n"
    stats = await Ledger(redis).get_stats()
    assert (stats.parked, await redis.llen("docv:live")) == (1, 0)
    assert stats.next_due is not None
    assert 15 < stats.next_due <= 30


async def test_the_ledger_records_the_outcomes_to_refresh(shell: Shell, redis: Redis) -> None:
    eval_id = str(uuid4())
    assert (await shell.run("enqueue", eval_id, "--refresh-outcome", "rejected,no_documents")).code == 0
    (job,) = await Ledger(redis).lease([eval_id], token="a-token")
    assert (job.refresh, job.refresh_outcomes) == (False, (ManifestOutcome.NO_DOCUMENTS, ManifestOutcome.REJECTED))


async def test_a_bad_id_is_reported_and_the_others_are_accepted(shell: Shell) -> None:
    finished = await shell.run("enqueue", "-", given=f"{uuid4()}\n{{no-id}}\n")
    assert finished.code == 1
    assert finished.out == "1 accepted on the queue live\n"
    assert "standard input, line 2: '{no-id}' is not a valid evaluation ID" in finished.err


async def test_an_invalid_run_name_is_refused_before_anything_is_accepted(shell: Shell, redis: Redis) -> None:
    finished = await shell.run("enqueue", str(uuid4()), "--run", "no name")
    assert finished.code == 2
    assert "the name of a run has" in finished.err
    assert not await redis.keys("docv:*")


async def test_a_named_run_can_be_reported_and_grows_with_each_command(shell: Shell) -> None:
    ids = [str(uuid4()) for _ in range(5)]
    (shell.folder / "ids.txt").write_text("\n".join(ids[:3]))
    shell.settings["DOCV_ACTOR"] = "the first person"
    assert (await shell.run("enqueue", "ids.txt", "--run", "q3")).err == ""
    shell.settings["DOCV_ACTOR"] = "the second person"
    assert (await shell.run("enqueue", *ids[2:], "--run", "q3")).code == 0
    found = [json.loads(line) for line in (await shell.run("report", "q3", "--json")).out.splitlines()]
    assert [(row["eval_id"], row["outcome"], row["cause"]) for row in found] == [
        (eval_id, "missing", "queued") for eval_id in ids
    ]
    (kept,) = (shell.folder / "archive" / "runs").rglob("run.json")
    assert json.loads(kept.read_text())["begun_by"] == "the first person"
    assert (await shell.run("cancel", "--run", "q3")).out == "5 cancelled\n"
    found = [json.loads(line) for line in (await shell.run("report", "q3", "--json")).out.splitlines()]
    assert {row["outcome"] for row in found} == {"cancelled"}


async def test_evaluations_are_queued_even_if_the_archive_cannot_store_the_list(shell: Shell, redis: Redis) -> None:
    shell.settings["DOCV_ARCHIVE_URL"] = "file:///proc/archive"
    finished = await shell.run("enqueue", str(uuid4()), "--run", "q3")
    assert (finished.code, finished.out) == (0, "1 accepted on the queue live\n")
    assert "run q3 has no list in the archive, so `report q3` cannot show it" in finished.err
    assert await redis.llen("docv:live") == 1
