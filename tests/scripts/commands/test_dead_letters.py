"""Evaluations that were tried enough: listed, tried anew and dropped by commands."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from redis.asyncio import Redis

from tasks.ledger.ledger import Ledger
from tasks.model.job import EnqueueOptions, Failure, Queue, Trigger
from tasks.model.outcome import Outcome
from tests.commands import Finished, Shell

FAILED, PAGE, LARGE, ALIVE = (f"0b54a4d4-6e5b-4f3c-9d2a-7c1f0e8b9a{number:02x}" for number in range(4))
DEAD = "docv:ledger:dead"
HOUR = 3600


@dataclass
class Graveyard:
    """Three dead letters and one evaluation that is none, in two runs.

    Attributes:
        shell: where commands are given.
        ledger: what they work on.
    """

    shell: Shell
    ledger: Ledger

    async def bury(self, eval_id: str, run: str, failure: Failure, attempts: int) -> None:
        trigger = Trigger("run", run=run)
        await self.ledger.accept([eval_id], EnqueueOptions(Queue.BACKFILL, "default", trigger))
        (entry,) = await self.ledger.lease([eval_id], token="a-token")
        await self.ledger.dead_letter(entry, attempts=attempts, failure=failure)

    async def left(self) -> set[str]:
        return {letter.eval_id async for letter in self.ledger.iterate_dead_letters()}

    async def command(self, *arguments: str, given: str = "") -> Finished:
        return await self.shell.run("dead-letters", *arguments, given=given)


@pytest.fixture
async def graveyard(redis: Redis, redis_url: str, tmp_path: Path) -> Graveyard:
    graveyard = Graveyard(Shell(tmp_path, {"DOCV_REDIS_URL": redis_url}), Ledger(redis))
    await graveyard.bury(FAILED, "q3", Failure("service_failed", "RiskOS answered with status 500", 500, "r-1"), 6)
    await graveyard.bury(PAGE, "q3", Failure("unexpected_answer", "a page", 200), attempts=6)
    await graveyard.bury(LARGE, "q4", Failure("bundle_too_large", "too large"), attempts=1)
    for eval_id, hours in ((FAILED, 1), (PAGE, 2 * 24), (LARGE, 30 * 24)):
        letter = json.loads(await redis.hget(DEAD, eval_id))
        letter |= {moment: letter[moment] - hours * HOUR * 1000 for moment in ("accepted", "first", "last")}
        await redis.hset(DEAD, eval_id, json.dumps(letter))
    trigger = Trigger("run", run="q3")
    await graveyard.ledger.accept([ALIVE], EnqueueOptions(Queue.BACKFILL, "default", trigger))
    return graveyard


# To list


async def test_a_person_sees_each_with_its_cause_and_how_many_there_are_of_each(graveyard: Graveyard) -> None:
    finished = await graveyard.command("list")
    assert (finished.code, finished.err) == (0, "")
    lines = {line.split()[0]: line for line in finished.out.splitlines()}
    assert lines.keys() == {"evaluation", FAILED, PAGE, LARGE, "3"}
    assert lines[FAILED].split()[1:4] == ["service_failed", "500", "6"]
    assert lines[LARGE].split()[1:3] == ["bundle_too_large", "1"]
    assert lines[LARGE].split()[-1] == "q4"
    counted = lines["3"].removeprefix("3 in all: ").split(", ")
    assert sorted(counted) == ["1 bundle_too_large", "1 service_failed", "1 unexpected_answer"]


async def test_a_program_reads_one_object_a_line(graveyard: Graveyard) -> None:
    finished = await graveyard.command("list", "--json")
    letters = {letter["eval_id"]: letter for letter in map(json.loads, finished.out.splitlines())}
    assert letters.keys() == {FAILED, PAGE, LARGE}
    letter = letters[FAILED]
    moments = [letter.pop(name) for name in ("accepted_at", "first_failed_at", "last_failed_at")]
    assert moments == sorted(moments)
    assert all(moment.endswith("Z") for moment in moments)
    assert letter == {
        "eval_id": FAILED,
        "cause": "service_failed",
        "why": "RiskOS answered with status 500",
        "status": 500,
        "request_id": "r-1",
        "attempts": 6,
        "account": "default",
        "queue": "backfill",
        "runs": ["q3"],
    }
    assert (letters[LARGE]["status"], letters[LARGE]["request_id"]) == (None, None)


@pytest.mark.parametrize(
    ("arguments", "chosen"),
    [
        ((FAILED.upper(), LARGE, ALIVE), {FAILED, LARGE}),
        (("--cause", "unexpected_answer"), {PAGE}),
        (("--run", "q3"), {FAILED, PAGE}),
        (("--older-than", "1d"), {PAGE, LARGE}),
        (("--older-than", "3d"), {LARGE}),
        (("--run", "q3", "--older-than", "47h"), {PAGE}),
        ((FAILED, PAGE, "--cause", "service_failed"), {FAILED}),
    ],
)
async def test_only_those_that_are_meant_are_listed(
    graveyard: Graveyard, arguments: tuple[str, ...], chosen: set[str]
) -> None:
    finished = await graveyard.command("list", "--json", *arguments)
    assert finished.code == 0
    assert {json.loads(line)["eval_id"] for line in finished.out.splitlines()} == chosen


async def test_where_there_is_none_that_is_said(graveyard: Graveyard) -> None:
    finished = await graveyard.command("list", "--cause", "store_failed")
    assert (finished.code, finished.out) == (0, "there are no such dead letters\n")
    as_json = await graveyard.command("list", "--cause", "store_failed", "--json")
    assert (as_json.code, as_json.out) == (0, "")


async def test_a_person_is_shown_a_hundred_and_a_program_all(graveyard: Graveyard, redis: Redis) -> None:
    letter = await redis.hget(DEAD, FAILED)
    others = {f"0b54a4d4-6e5b-4f3c-9d2a-7c1f0e8c{number:04x}": letter for number in range(120)}
    await redis.hset(DEAD, mapping=others)
    lines = (await graveyard.command("list", "--cause", "service_failed")).out.splitlines()
    assert len(lines) == 1 + 100 + 2
    assert lines[-2:] == ["... and 21 more; --json prints them all", "121 in all: 121 service_failed"]
    assert len((await graveyard.command("list", "--cause", "service_failed", "--json")).out.splitlines()) == 121


# To try anew


async def test_what_is_tried_anew_is_pending_again_with_all_its_attempts(graveyard: Graveyard) -> None:
    finished = await graveyard.command("redrive", "--run", "q3", "--json")

    assert (finished.code, json.loads(finished.out)) == (0, {"redriven": 2, "missing": 0})
    assert await graveyard.left() == {LARGE}
    run = await graveyard.ledger.get_run("q3")
    assert (run.total, run.pending, run.outcomes[Outcome.FAILED]) == (3, 3, 0)
    assert (await graveyard.ledger.get_run("q4")).outcomes[Outcome.FAILED] == 1
    entries = await graveyard.ledger.lease([FAILED, PAGE], token="a-token")
    assert [(entry.eval_id, entry.attempts) for entry in entries] == [(FAILED, 0), (PAGE, 0)]


async def test_what_is_named_and_is_no_dead_letter_is_told_by_the_exit_code(graveyard: Graveyard) -> None:
    finished = await graveyard.command("redrive", FAILED, ALIVE)
    assert finished.code == 1
    assert finished.out.startswith("1 redriven; 1 of the named are no dead letters\na worker takes them up")
    again = await graveyard.command("redrive", FAILED, "--json")
    assert (again.code, json.loads(again.out)) == (1, {"redriven": 0, "missing": 1})
    assert await graveyard.left() == {PAGE, LARGE}


async def test_with_nothing_said_all_are_meant(graveyard: Graveyard) -> None:
    assert (await graveyard.command("redrive")).out.startswith("3 redriven\n")
    assert await graveyard.left() == set()
    finished = await graveyard.command("redrive")
    assert (finished.code, finished.out) == (0, "0 redriven\n")


# To drop


@pytest.mark.parametrize("given", ["", "n\n", "\n"], ids=["nobody is there", "no", "nothing is said"])
async def test_nothing_is_dropped_unless_a_person_says_yes(graveyard: Graveyard, given: str) -> None:
    finished = await graveyard.command("drop", "--older-than", "1d", given=given)
    assert (finished.code, finished.out) == (1, "")
    assert "Go on?" in finished.err
    assert "Traceback" not in finished.err
    assert await graveyard.left() == {FAILED, PAGE, LARGE}


async def test_what_is_dropped_is_gone_and_its_run_remembers_that_it_failed(graveyard: Graveyard) -> None:
    finished = await graveyard.command("drop", "--older-than", "3d", given="y\n")
    assert (finished.code, finished.out) == (0, "1 dropped\n")
    assert await graveyard.left() == {FAILED, PAGE}

    finished = await graveyard.command("drop", "--yes", FAILED, ALIVE, "--json")

    assert (finished.code, json.loads(finished.out)) == (1, {"dropped": 1, "missing": 1})
    assert await graveyard.left() == {PAGE}
    run = await graveyard.ledger.get_run("q3")
    assert (run.total, run.pending, run.outcomes[Outcome.FAILED]) == (3, 1, 2)
    assert [entry.eval_id for entry in await graveyard.ledger.lease([FAILED, ALIVE], token="a-token")] == [ALIVE]


# What is wrong


@pytest.mark.parametrize("verb", [("list",), ("redrive",), ("drop", "--yes")], ids=lambda verb: verb[0])
@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (("0b54a4d4",), "is no evaluation ID"),
        (("--run", "no name at all"), "the name of a run"),
        (("--older-than", "soon"), "expected is a number and s, m, h or d"),
        (("--older-than", "-1h"), "expected is a number and s, m, h or d"),
    ],
    ids=["ID", "run", "time", "negative time"],
)
async def test_what_makes_no_sense_changes_nothing(
    graveyard: Graveyard, verb: tuple[str, ...], wrong: tuple[str, ...], said: str
) -> None:
    finished = await graveyard.command(*verb, *wrong)
    assert (finished.code, finished.out) == (2, "")
    assert said in finished.err
    assert "Traceback" not in finished.err
    assert await graveyard.left() == {FAILED, PAGE, LARGE}
