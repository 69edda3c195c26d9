"""Commands list, redrive and drop evaluations that are out of attempts."""

import io
import json
import re
from dataclasses import dataclass
from pathlib import Path

import pytest
from redis.asyncio import Redis
from rich.console import Console

from scripts.commands.dead_letters import _count, _drop, _make_table, make_filter
from tasks.ledger.ledger import Ledger
from tasks.ledger.rejected_messages import RejectedMessages
from tasks.model.job import DeadLetter, EnqueueOptions, Failure, Queue, Trigger
from tasks.model.outcome import Outcome
from tests.commands import Finished, Shell

FAILED, PAGE, LARGE, ALIVE = (f"0b54a4d4-6e5b-4f3c-9d2a-7c1f0e8b9a{number:02x}" for number in range(4))
DEAD = "docv:ledger:dead"
HOUR = 3600


@dataclass
class DeadLetterShell:
    """A shell for a ledger with three dead letters and one other evaluation, in two runs.

    Attributes:
        shell: runs the commands.
        ledger: the ledger that the commands use.
    """

    shell: Shell
    ledger: Ledger

    async def add(self, eval_id: str, run: str, failure: Failure, attempts: int) -> None:
        trigger = Trigger("run", run=run)
        await self.ledger.accept([eval_id], EnqueueOptions(Queue.BACKFILL, "default", trigger))
        (entry,) = await self.ledger.lease([eval_id], token="a-token")
        await self.ledger.dead_letter(entry, attempts=attempts, failure=failure)

    async def list_ids(self) -> set[str]:
        return {letter.eval_id async for letter in self.ledger.dead_letters.iterate()}

    async def run(self, *arguments: str, given: str = "") -> Finished:
        return await self.shell.run("dead-letters", *arguments, given=given)


@pytest.fixture
async def dead_letters(redis: Redis, redis_url: str, tmp_path: Path) -> DeadLetterShell:
    dead_letters = DeadLetterShell(Shell(tmp_path, {"DOCV_REDIS_URL": redis_url}), Ledger(redis))
    await dead_letters.add(FAILED, "q3", Failure("service_failed", "RiskOS answered with status 500", 500, "r-1"), 6)
    await dead_letters.add(PAGE, "q3", Failure("unexpected_answer", "a page", 200), attempts=6)
    await dead_letters.add(LARGE, "q4", Failure("bundle_too_large", "too large"), attempts=1)
    for eval_id, hours in ((FAILED, 1), (PAGE, 2 * 24), (LARGE, 30 * 24)):
        letter = json.loads(await redis.hget(DEAD, eval_id))
        letter |= {moment: letter[moment] - hours * HOUR * 1000 for moment in ("accepted", "first", "last")}
        await redis.hset(DEAD, eval_id, json.dumps(letter))
    trigger = Trigger("run", run="q3")
    await dead_letters.ledger.accept([ALIVE], EnqueueOptions(Queue.BACKFILL, "default", trigger))
    return dead_letters


# List


async def test_an_unusable_event_is_listed_with_its_id_and_type_and_how_to_find_it(
    redis: Redis, redis_url: str, tmp_path: Path
) -> None:
    rejected, why = RejectedMessages(redis), "it names no evaluation"
    await rejected.add(cause="bad_event", why=why, source="webhook", message="e-1", event_type="reevaluation")
    shell = Shell(tmp_path, {"DOCV_REDIS_URL": redis_url})
    output = (await shell.run("dead-letters", "list")).out
    assert re.search(r"(?m)^  e-1  reevaluation  \d{4}-\d\d-\d\dT", output)
    assert "RiskOS's dashboard" in output
    (line,) = (await shell.run("dead-letters", "list", "--json")).out.splitlines()
    assert (json.loads(line)["message"], json.loads(line)["event_type"]) == ("e-1", "reevaluation")


async def test_the_table_shows_each_dead_letter_and_the_count_of_each_cause(dead_letters: DeadLetterShell) -> None:
    finished = await dead_letters.run("list")
    assert (finished.code, finished.err) == (0, "")
    lines = {line.split()[0]: line for line in finished.out.splitlines()}
    assert lines.keys() == {"evaluation", FAILED, PAGE, LARGE, "3"}
    assert lines[FAILED].split()[1:4] == ["service_failed", "500", "6"]
    assert lines[LARGE].split()[1:3] == ["bundle_too_large", "1"]
    assert lines[LARGE].split()[-1] == "q4"
    counted = lines["3"].removeprefix("3 in all: ").split(", ")
    assert sorted(counted) == ["1 bundle_too_large", "1 service_failed", "1 unexpected_answer"]


async def test_json_has_one_object_per_line(dead_letters: DeadLetterShell) -> None:
    finished = await dead_letters.run("list", "--json")
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
async def test_only_selected_dead_letters_are_listed(
    dead_letters: DeadLetterShell, arguments: tuple[str, ...], chosen: set[str]
) -> None:
    finished = await dead_letters.run("list", "--json", *arguments)
    assert finished.code == 0
    assert {json.loads(line)["eval_id"] for line in finished.out.splitlines()} == chosen


async def test_the_list_reports_that_there_are_no_matching_dead_letters(dead_letters: DeadLetterShell) -> None:
    finished = await dead_letters.run("list", "--cause", "store_failed")
    assert (finished.code, finished.out) == (0, "there are no such dead letters\n")
    as_json = await dead_letters.run("list", "--cause", "store_failed", "--json")
    assert (as_json.code, as_json.out) == (0, "")


async def test_the_table_shows_at_most_a_hundred_dead_letters_and_json_shows_all(
    dead_letters: DeadLetterShell, redis: Redis
) -> None:
    letter = await redis.hget(DEAD, FAILED)
    others = {f"0b54a4d4-6e5b-4f3c-9d2a-7c1f0e8c{number:04x}": letter for number in range(120)}
    await redis.hset(DEAD, mapping=others)
    lines = (await dead_letters.run("list", "--cause", "service_failed")).out.splitlines()
    assert len(lines) == 1 + 100 + 2
    assert lines[-2:] == ["... and 21 more; --json prints them all", "121 in all: 121 service_failed"]
    assert len((await dead_letters.run("list", "--cause", "service_failed", "--json")).out.splitlines()) == 121


def test_a_dead_letter_is_not_cut_at_80_columns() -> None:
    failure = Failure("unexpected_answer", "a page", 200)
    letter = DeadLetter(FAILED, failure, 6, "default", Queue.LIVE, ("customers-2026-q3-a-long-name",), 0.0, 0.0, 0.0)
    console = Console(width=80, file=io.StringIO())
    console.print(_make_table([letter], console.width))
    assert isinstance(console.file, io.StringIO)
    words = console.file.getvalue().split()
    assert {FAILED, "unexpected_answer", "200", "6", "1970-01-01T00:00:00Z", *letter.runs[0].split()} <= {*words}


# Redrive


async def test_a_redriven_evaluation_is_pending_again_with_all_its_attempts(dead_letters: DeadLetterShell) -> None:
    finished = await dead_letters.run("redrive", "--run", "q3", "--json")

    assert (finished.code, json.loads(finished.out)) == (0, {"redriven": 2, "missing": 0})
    assert await dead_letters.list_ids() == {LARGE}
    run = await dead_letters.ledger.runs.get_counters("q3")
    assert (run.total, run.pending, run.outcomes[Outcome.FAILED]) == (3, 3, 0)
    assert (await dead_letters.ledger.runs.get_counters("q4")).outcomes[Outcome.FAILED] == 1
    entries = await dead_letters.ledger.lease([FAILED, PAGE], token="a-token")
    assert [(entry.eval_id, entry.attempts) for entry in entries] == [(FAILED, 0), (PAGE, 0)]


async def test_the_exit_code_is_1_when_a_named_evaluation_is_not_a_dead_letter(dead_letters: DeadLetterShell) -> None:
    finished = await dead_letters.run("redrive", FAILED, ALIVE)
    assert finished.code == 1
    assert finished.out.startswith(
        "1 redriven; 1 of the named evaluations is not a dead letter\na running worker starts them"
    )
    again = await dead_letters.run("redrive", FAILED, "--json")
    assert (again.code, json.loads(again.out)) == (1, {"redriven": 0, "missing": 1})
    assert await dead_letters.list_ids() == {PAGE, LARGE}


async def test_all_dead_letters_are_redriven_without_a_selection(dead_letters: DeadLetterShell) -> None:
    assert (await dead_letters.run("redrive")).out.startswith("3 redriven\n")
    assert await dead_letters.list_ids() == set()
    finished = await dead_letters.run("redrive")
    assert (finished.code, finished.out) == (0, "0 redriven\n")


# Drop


@pytest.mark.parametrize("given", ["", "n\n", "\n"], ids=["end of input", "no", "empty line"])
async def test_nothing_is_dropped_without_confirmation(dead_letters: DeadLetterShell, given: str) -> None:
    finished = await dead_letters.run("drop", "--older-than", "1d", given=given)
    assert (finished.code, finished.out) == (1, "")
    assert "Continue?" in finished.err
    assert "Traceback" not in finished.err
    assert await dead_letters.list_ids() == {FAILED, PAGE, LARGE}


async def test_a_dropped_dead_letter_is_removed_and_its_run_still_counts_the_failure(
    dead_letters: DeadLetterShell,
) -> None:
    finished = await dead_letters.run("drop", "--older-than", "3d", given="y\n")
    assert (finished.code, finished.out) == (0, "1 dropped\n")
    assert await dead_letters.list_ids() == {FAILED, PAGE}

    finished = await dead_letters.run("drop", "--yes", FAILED, ALIVE, "--json")

    assert (finished.code, json.loads(finished.out)) == (1, {"dropped": 1, "missing": 1})
    assert await dead_letters.list_ids() == {PAGE}
    run = await dead_letters.ledger.runs.get_counters("q3")
    assert (run.total, run.pending, run.outcomes[Outcome.FAILED]) == (3, 1, 2)
    assert [entry.eval_id for entry in await dead_letters.ledger.lease([FAILED, ALIVE], token="a-token")] == [ALIVE]


@pytest.mark.parametrize(
    ("arguments", "question"),
    [
        ((), "Drop 3 dead letters (1 bundle_too_large, 1 service_failed, 1 unexpected_answer) and 1 rejected message"),
        (("--cause", "service_failed"), "Drop 1 dead letter (1 service_failed)?"),
        ((FAILED, PAGE), "Drop 2 dead letters (1 service_failed, 1 unexpected_answer)?"),
    ],
    ids=["all", "a cause", "evaluations"],
)
async def test_the_question_shows_the_count_and_the_causes_of_the_dead_letters(
    dead_letters: DeadLetterShell, redis: Redis, arguments: tuple[str, ...], question: str
) -> None:
    await RejectedMessages(redis).add(cause="bad_message", why="it is not JSON", source="live")
    finished = await dead_letters.run("drop", *arguments, given="n\n")
    normalized = re.sub(
        r"(?<=\()1 \w+(?:, 1 \w+)*(?=\))", lambda causes: ", ".join(sorted(causes[0].split(", "))), finished.err
    )
    assert question in normalized
    assert "in no archive" not in normalized  # a failed refresh keeps documents that were archived before
    assert await dead_letters.list_ids() == {FAILED, PAGE, LARGE}


async def test_no_question_is_asked_when_there_is_nothing_to_drop(dead_letters: DeadLetterShell) -> None:
    finished = await dead_letters.run("drop", "--older-than", "90d")
    assert (finished.code, finished.out, finished.err) == (0, "0 dropped\n", "")


async def test_a_dead_letter_is_not_dropped_when_it_was_added_after_the_question(
    dead_letters: DeadLetterShell, redis: Redis
) -> None:
    choice = make_filter((), None, None, 0.0)
    counts, now = await _count(redis, choice)
    assert sum(each.total() for each in counts.values()) == 3
    letter = json.loads(await redis.hget(DEAD, FAILED))
    await redis.hset(DEAD, FAILED, json.dumps(letter | {"last": round((now + 1) * 1000)}))
    assert await _drop(redis, choice, now) == 2
    assert await dead_letters.list_ids() == {FAILED}


async def test_a_cause_of_another_version_is_accepted_if_a_dead_letter_has_it(dead_letters: DeadLetterShell) -> None:
    await dead_letters.add(ALIVE, "q3", Failure("service_moved", "RiskOS has moved"), attempts=6)
    assert (await dead_letters.run("redrive", "--cause", "service_moved")).out.startswith("1 redriven\n")


async def test_redrive_reports_rejected_messages_as_not_redriven(dead_letters: DeadLetterShell, redis: Redis) -> None:
    await RejectedMessages(redis).add(cause="bad_message", why="it is not JSON", source="live")
    finished = await dead_letters.run("redrive", "--cause", "bad_message")
    assert (finished.code, finished.out) == (0, "0 redriven\n")
    assert "not redriven: 1 rejected message (1 bad_message)" in finished.err


# Invalid arguments


@pytest.mark.parametrize("verb", [("list",), ("redrive",), ("drop", "--yes")], ids=lambda verb: verb[0])
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (("0b54a4d4",), "is not a valid evaluation ID"),
        (("--run", "no name at all"), "the name of a run"),
        (("--run", "q-3"), "there is no run q-3: did you mean q3"),
        (("--cause", "service_faild"), "did you mean service_failed"),
        (("--cause", "everything"), "'everything' is not a known cause: expected one of "),
        (("--older-than", "soon"), "expected a number and s, m, h or d"),
        (("--older-than", "-1h"), "expected a number and s, m, h or d"),
    ],
    ids=["ID", "run", "unknown run", "cause", "unlike any cause", "time", "negative time"],
)
async def test_invalid_arguments_change_nothing(
    dead_letters: DeadLetterShell, verb: tuple[str, ...], wrong: tuple[str, ...], message: str
) -> None:
    finished = await dead_letters.run(*verb, *wrong)
    assert (finished.code, finished.out) == (2, "")
    assert message in finished.err
    assert "Traceback" not in finished.err
    assert await dead_letters.list_ids() == {FAILED, PAGE, LARGE}
