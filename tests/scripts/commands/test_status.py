"""`status` shows evaluations in flight, as text and as JSON."""

import json
import re
import signal
from pathlib import Path

import pytest
from redis.asyncio import Redis

from tasks.ledger.ledger import Ledger
from tasks.ledger.rejected_messages import RejectedMessages
from tasks.ledger.worker_registry import WorkerRegistry
from tasks.model.job import EnqueueOptions, Failure, Queue, Trigger
from tasks.model.outcome import ManifestOutcome, Outcome
from tasks.resilience.holds import Holds
from tests.commands import Shell, finish
from tests.holds import refused


@pytest.fixture
async def shell(redis: Redis, redis_url: str, tmp_path: Path) -> Shell:
    """Return a shell with a Redis that has evaluations in every state."""
    ledger = Ledger(redis)
    ids = [f"0b54a4d4-6e5b-4f3c-9d2a-7c1f0e8b9a{number:02x}" for number in range(8)]
    await ledger.accept(ids, EnqueueOptions(Queue.BACKFILL, "default", Trigger("run", run="q3")))
    archived, parked, dead, waiting, _ = await ledger.lease(ids[:5], token="a-token")
    await ledger.complete(archived, Outcome.ARCHIVED)
    why = "RiskOS answered with status 503"
    await ledger.retry_later(parked, wait=90, attempts=1, failure=Failure("service_failed", why))
    await ledger.dead_letter(dead, attempts=6, failure=Failure("service_failed"))
    await ledger.await_hold(waiting, cause="account_refused")
    await refused(Holds(redis), "default", 401, probe=False)
    return Shell(tmp_path, {"DOCV_REDIS_URL": redis_url})


async def test_json_has_all_evaluations_in_flight_in_one_object(shell: Shell) -> None:
    finished = await shell.run("status", "--json")
    found = json.loads(finished.out)
    assert finished.code == 0
    assert found["queues"]["backfill"]["evaluations"] == 3
    assert found["queues"]["live"] == {"evaluations": 0, "oldest_seconds": 0.0, "workers": 0}
    assert found["refused_messages"] == 0
    assert (found["in_flight"], found["parked"], found["held"], found["dead_letters"]) == (1, 1, 1, 1)
    assert 60 < found["next_due_seconds"] <= 90
    assert [(hold["what"], hold["reason"]) for hold in found["holds"]] == [("account default", "401")]
    assert (found["runs"]["q3"]["total"], found["runs"]["q3"]["pending"]) == (8, 6)
    assert 60 < found["runs"]["q3"]["seconds_left"] <= 90  # the parked evaluation is due then
    assert found["runs"]["q3"]["outcomes"]["archived"] == found["runs"]["q3"]["outcomes"]["failed"] == 1


async def test_a_run_is_watched_until_it_has_ended(shell: Shell, redis: Redis) -> None:
    ledger, eval_id = Ledger(redis), "0b54a4d4-6e5b-4f3c-9d2a-7c1f0e8b9c00"
    await ledger.accept([eval_id], EnqueueOptions(Queue.BACKFILL, "default", Trigger("run", run="q5")))
    process = await shell.start("status", "q5", "--watch", "--json")
    assert process.stdout
    first = json.loads(await process.stdout.readline())
    (entry,) = await ledger.lease([eval_id], token="a-token")
    await ledger.complete(entry, Outcome.ARCHIVED)
    finished = await finish(process)
    last = json.loads(finished.out.splitlines()[-1])
    assert (finished.code, first["pending"], last["pending"]) == (0, 1, 0)
    assert (await shell.run("status", "unknown", "--watch")).code == 1


async def test_a_watch_ends_with_ctrl_c(shell: Shell) -> None:
    process = await shell.start("status", "--watch", "--json")
    assert process.stdout
    for _ in range(2):
        assert json.loads(await process.stdout.readline())["parked"] == 1
    process.send_signal(signal.SIGINT)
    assert (await finish(process)).code == 130


async def test_an_unchanged_evaluation_needs_attention_when_its_earlier_outcome_does(
    shell: Shell, redis: Redis
) -> None:
    ledger = Ledger(redis)
    ids = [f"0b54a4d4-6e5b-4f3c-9d2a-7c1f0e8b9b{number:02x}" for number in range(3)]
    await ledger.accept(ids, EnqueueOptions(Queue.BACKFILL, "default", Trigger("run", run="q4")))
    found = (ManifestOutcome.NO_DOCUMENTS, ManifestOutcome.REJECTED, ManifestOutcome.REJECTED)
    for entry, unchanged in zip(await ledger.lease(ids, token="a-token"), found, strict=True):
        await ledger.complete(entry, Outcome.UNCHANGED, unchanged)

    split = dict.fromkeys(ManifestOutcome, 0) | {"no_documents": 1, "rejected": 2}
    assert json.loads((await shell.run("status", "--json")).out)["runs"]["q4"]["unchanged_outcomes"] == split
    assert re.search(r"q4 +3 +0 +2 *\n", (await shell.run("status")).out)
    run = await shell.run("status", "q4")
    assert run.code == 1
    assert "no_documents 1, rejected 2: these were in the archive before" in run.out


async def test_text_shows_queues_parked_evaluations_and_holds(shell: Shell) -> None:
    output = (await shell.run("status")).out
    assert "queue backfill" in output
    assert "parked for service_failed: RiskOS answered with status 503" in output
    assert "on hold: account default" in output
    assert "reason 401" in output
    assert "q3" in output


async def test_the_exit_code_is_1_while_a_run_is_unfinished(shell: Shell) -> None:
    finished = await shell.run("status", "q3", "--json")
    found = json.loads(finished.out)
    assert finished.code == 1
    assert (found["run"], found["total"], found["pending"], found["dead_letters"]) == ("q3", 8, 6, 1)
    assert found["states"] == {"unfed": 0, "queued": 3, "leased": 1, "parked": 1, "held": 1}


async def test_text_shows_where_unfinished_evaluations_are(shell: Shell) -> None:
    output = (await shell.run("status", "q3")).out
    assert (
        "no outcome yet: 3 queued, 1 in flight, 1 parked until another attempt, 1 waiting for a hold to end" in output
    )


async def test_workers_and_rejected_messages_are_counted(shell: Shell, redis: Redis) -> None:
    await WorkerRegistry(redis).heartbeat("one", [Queue.LIVE])
    await RejectedMessages(redis).add(cause="bad_message", why="it is not JSON", source="live")
    output = (await shell.run("status")).out
    assert re.search(r"queue live +0 +1 worker *\n", output)
    assert "no workers, the oldest for" in output
    assert "rejected messages" in output


async def test_messages_that_no_worker_reads_are_reported(shell: Shell, redis: Redis) -> None:
    await redis.rpush("celery", '{"headers": {"task": "docv.archive"}}')
    output = (await shell.run("status")).out
    assert re.search("messages in celery, which no worker reads +1 +set the key prefix", output)
    assert json.loads((await shell.run("status", "--json")).out)["unread_messages"] == {"celery": 1}


async def test_a_paused_worker_is_reported_with_its_reason(shell: Shell, redis: Redis) -> None:
    workers, note = WorkerRegistry(redis), "the archive could not create an object: No space left on device"
    await workers.heartbeat("one", [Queue.LIVE])
    await workers.pause("one", "@archive", "cannot_write", note)
    output = (await shell.run("status")).out
    assert re.search(r"paused: worker one for .*, for the archive, reason cannot_write", output)
    assert note in output
    (paused,) = json.loads((await shell.run("status", "--json")).out)["paused_workers"]
    assert paused.pop("lasting_seconds") >= 0
    assert paused == {"worker": "one", "what": "the archive", "reason": "cannot_write", "note": note}


async def test_damaged_entries_are_reported(shell: Shell, redis: Redis) -> None:
    eval_id = str((await redis.zrange("docv:ledger:queued:backfill", 0, 0))[0])
    await redis.hset("docv:ledger:entries", eval_id, "no JSON")
    assert (await shell.run("status")).code == 0
    await Ledger(redis).locate([eval_id])
    assert re.search(r"damaged entries +1 +see `docv-archive dead-letters list`", (await shell.run("status")).out)
    assert json.loads((await shell.run("status", "--json")).out)["damaged_entries"] == 1
    listed = (await shell.run("dead-letters", "list", "--cause", "damaged_entry")).out
    assert listed.splitlines()[1].strip() == eval_id
    dropped = await shell.run("dead-letters", "drop", eval_id, "--yes", "--json")
    assert (dropped.code, json.loads(dropped.out)) == (0, {"dropped": 1, "missing": 0})


@pytest.mark.parametrize(("name", "code"), [("q4", 1), ("no name at all", 2), ("x" * 65, 2)])
async def test_an_unknown_run_is_reported_in_one_sentence(shell: Shell, name: str, code: int) -> None:
    finished = await shell.run("status", name)
    assert finished.code == code
    assert finished.out == ""
    assert "run" in finished.err
    assert "Traceback" not in finished.err
