"""What is under way, told by the command to a person and to a program."""

import json
import re
from pathlib import Path

import pytest
from redis.asyncio import Redis

from tasks.ledger.ledger import Ledger
from tasks.ledger.rejected_messages import RejectedMessages
from tasks.ledger.worker_registry import WorkerRegistry
from tasks.model.job import EnqueueOptions, Failure, Queue, Trigger
from tasks.model.outcome import ManifestOutcome, Outcome
from tasks.resilience.holds import Holds
from tests.commands import Shell
from tests.holds import refused


@pytest.fixture
async def shell(redis: Redis, redis_url: str, tmp_path: Path) -> Shell:
    """A Redis in which something of every sort is under way."""
    ledger = Ledger(redis)
    ids = [f"0b54a4d4-6e5b-4f3c-9d2a-7c1f0e8b9a{number:02x}" for number in range(8)]
    await ledger.accept(ids, EnqueueOptions(Queue.BACKFILL, "default", Trigger("run", run="q3")))
    settled, parked, buried, waiting, _ = await ledger.lease(ids[:5], token="a-token")
    await ledger.complete(settled, Outcome.ARCHIVED)
    await ledger.retry_later(parked, wait=90, attempts=1, failure=Failure("service_failed"))
    await ledger.dead_letter(buried, attempts=6, failure=Failure("service_failed"))
    await ledger.await_hold(waiting, cause="account_refused")
    await refused(Holds(redis), "default", 401, probe=False)
    return Shell(tmp_path, {"DOCV_REDIS_URL": redis_url})


async def test_everything_that_is_under_way_is_one_object(shell: Shell) -> None:
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
    assert found["runs"]["q3"]["seconds_left"] == pytest.approx(6 / (10 * 0.9), abs=0.1)
    assert found["runs"]["q3"]["outcomes"]["archived"] == found["runs"]["q3"]["outcomes"]["failed"] == 1


async def test_unchanged_evaluations_are_to_look_at_if_their_manifests_outcomes_are(shell: Shell, redis: Redis) -> None:
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


async def test_a_person_reads_the_same(shell: Shell) -> None:
    said = (await shell.run("status")).out
    assert "queue backfill" in said
    assert "parked for service_failed" in said
    assert "on hold: account default" in said
    assert "reason 401" in said
    assert "q3" in said


async def test_a_run_that_is_not_over_is_not_fine_yet(shell: Shell) -> None:
    finished = await shell.run("status", "q3", "--json")
    found = json.loads(finished.out)
    assert finished.code == 1
    assert (found["run"], found["total"], found["pending"], found["dead_letters"]) == ("q3", 8, 6, 1)
    assert found["states"] == {"unfed": 0, "queued": 3, "leased": 1, "parked": 1, "held": 1}


async def test_a_person_reads_where_those_stand_that_have_no_outcome_yet(shell: Shell) -> None:
    said = (await shell.run("status", "q3")).out
    assert "no outcome yet: 3 queued, 1 in flight, 1 parked until another attempt, 1 waiting for a hold to end" in said


async def test_workers_and_what_was_refused_are_counted(shell: Shell, redis: Redis) -> None:
    await WorkerRegistry(redis).heartbeat("one", [Queue.LIVE])
    await RejectedMessages(redis).add(cause="bad_message", why="it is no JSON", source="live")
    said = (await shell.run("status")).out
    assert re.search(r"queue live +0 +1 worker *\n", said)
    assert "no workers, the oldest for" in said
    assert "refused messages" in said


@pytest.mark.parametrize("name", ["q4", "no name at all", "x" * 65])
async def test_a_run_nobody_has_heard_of_is_told(shell: Shell, name: str) -> None:
    finished = await shell.run("status", name)
    assert finished.code == 2
    assert finished.out == ""
    assert "run" in finished.err
    assert "Traceback" not in finished.err
