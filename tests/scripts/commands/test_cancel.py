"""`cancel`, as a user runs it: waiting evaluations are cancelled, the archive records it, and the run ends."""

import csv
import io
import json
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from scripts.simulator.options import SimulatorOptions
from scripts.simulator.scenarios import Scenario, eval_id_for
from scripts.simulator.server import Simulator, start_simulator
from tasks.ledger.ledger import Ledger
from tasks.ledger.script import LedgerScript
from tasks.model.job import EnqueueOptions, Queue, Trigger
from tests.commands import KEY, Shell, finish, wait_until

IDS = [eval_id_for(Scenario.DOCUMENTED, number) for number in range(2_000)]


@pytest.fixture
async def riskos() -> AsyncIterator[Simulator]:
    async with await start_simulator(SimulatorOptions(api_key=KEY, image_bytes=3_000)) as simulator:
        yield simulator


@pytest.fixture
def local_shell(riskos: Simulator, tmp_path: Path) -> Shell:
    """Return a shell with a list of IDs, without a shared Redis and without workers."""
    (tmp_path / "ids.txt").write_text("\n".join(IDS) + "\n")
    settings = {"DOCV_API_KEY": KEY, "DOCV_RISKOS_URL": riskos.url, "DOCV_RATE": "40", "DOCV_DAILY_QUOTA": "1000000"}
    return Shell(tmp_path, settings | {"DOCV_BACKLOG": "1000"})


@pytest.fixture
def shell(local_shell: Shell, redis: Redis, redis_url: str) -> Shell:
    """The same, with a Redis that workers share."""
    local_shell.settings["DOCV_REDIS_URL"] = redis_url
    return local_shell


def read_run_json(shell: Shell) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads((shell.folder / "archive/runs/sandbox/q3/run.json").read_bytes())
    return facts


async def test_a_cancelled_backfill_ends_and_reports_its_cancelled_evaluations(
    local_shell: Shell, riskos: Simulator
) -> None:
    process = await local_shell.start("backfill", "ids.txt", "--run", "q3", "--json")
    await wait_until(lambda: riskos.stats().requests > 15, process)
    cancelled = await local_shell.run("cancel", "--run", "q3", "--by", "a person", "--json")
    requests = riskos.stats().requests
    ended = await finish(process)

    counts, summary = json.loads(cancelled.out), json.loads(ended.out)
    assert (cancelled.code, ended.code) == (0, 1)
    # At most 1.5 times DOCV_CONCURRENCY are in flight, and the worker notices after 5 seconds of 40 requests each.
    assert riskos.stats().requests - requests <= 96 + 5 * 40 < counts["in_flight"]
    assert summary["pending"] == 0
    assert summary["outcomes"]["archived"] + summary["outcomes"]["cancelled"] == summary["total"] == 2_000
    assert riskos.stats().requests == summary["outcomes"]["archived"]
    facts = read_run_json(local_shell)
    assert (facts["cancelled_by"], facts["position"], counts["run"]) == ("a person", counts["position"], "q3")

    report = await local_shell.run("report", "q3")
    rows = list(csv.DictReader(io.StringIO(report.out)))
    found = Counter(row["outcome"] for row in rows)
    assert found == {outcome: count for outcome, count in summary["outcomes"].items() if count}
    assert {row["outcome"] for row in rows[facts["position"] :]} == {"cancelled"}
    assert report.code == 1
    await local_shell.run("report", "q3", "--html", "q3.html")
    assert "by a person" in (local_shell.folder / "q3.html").read_text("utf-8")
    shown = await local_shell.run("show", IDS[-1], "--json")
    assert (shown.code, json.loads(shown.out)["outcome"]) == (1, "missing")
    assert (await local_shell.run("verify")).code == 0


async def test_a_cancelled_backfill_starts_again_only_with_the_again_option(
    local_shell: Shell, riskos: Simulator
) -> None:
    (local_shell.folder / "ids.txt").write_text("\n".join(IDS[:300]) + "\n")
    process = await local_shell.start("backfill", "ids.txt", "--run", "q3")
    await wait_until(lambda: riskos.stats().requests > 15, process)
    await local_shell.run("cancel", "--run", "q3")
    await finish(process)

    local_shell.settings["DOCV_RATE"] = "400"
    refused = await local_shell.run("backfill", "ids.txt", "--run", "q3")
    assert (refused.code, refused.out) == (2, "")
    assert (
        refused.err
        == "docv-archive: run q3 was cancelled; nothing was queued: --again starts it again from its first ID\n"
    )

    again = await local_shell.run("backfill", "ids.txt", "--run", "q3", "--again", "--json")
    summary = json.loads(again.out)
    assert again.code == 0, again.err
    assert summary["outcomes"]["archived"] + summary["outcomes"]["unchanged"] == summary["total"] == 300
    assert "cancelled_at" not in read_run_json(local_shell)
    assert riskos.stats().requests == 300
    assert (await local_shell.run("report", "q3")).code == 0


async def test_evaluations_of_an_account_on_hold_are_cancelled(shell: Shell, redis: Redis) -> None:
    await shell.run("backfill", "ids.txt", "--run", "q3", "--detach")
    await shell.run("enqueue", *IDS[:5], "--run", "other", "--queue", "backfill")
    await shell.run("hold", "--reason", "closing")
    finished = await shell.run("cancel", "--run", "q3")
    assert (finished.code, finished.out, finished.err) == (0, "2000 cancelled\n", "")
    again = await shell.run("cancel", "--run", "q3")
    assert (again.code, again.out) == (0, "0 cancelled\n")
    assert (await Ledger(redis).runs.get_counters("other")).pending == 5
    assert read_run_json(shell)["position"] == 0
    assert (await shell.run("status", "q3")).code == 1


async def test_the_same_command_completes_a_cancellation_that_was_killed(shell: Shell, redis: Redis) -> None:
    await shell.run("backfill", "ids.txt", "--run", "q3", "--detach")
    order = EnqueueOptions(Queue.BACKFILL, "default", Trigger("backfill", run="q3"))
    await Ledger(redis).runs.feed("q3", IDS[:10], order, position=0, backlog=1_000)
    await LedgerScript(redis).call("cancel_list", "q3")
    refused = await shell.run("backfill", "ids.txt", "--run", "q3", "--detach")
    assert (refused.code, "was cancelled" in refused.err) == (2, True)
    assert json.loads((await shell.run("cancel", "--run", "q3", "--json")).out) == {
        "cancelled": 10,
        "in_flight": 0,
        "run": "q3",
        "position": 10,
    }
    assert read_run_json(shell)["position"] == 10
    first = read_run_json(shell)
    await shell.run("cancel", "--run", "q3", "--by", "another")
    assert read_run_json(shell) == first


async def test_evaluations_are_cancelled_by_their_ids(shell: Shell, redis: Redis) -> None:
    await shell.run("enqueue", *IDS[:6])
    await shell.run("enqueue", *IDS[:3], "--run", "other")
    (shell.folder / "wrong.txt").write_text("\n".join([*IDS[1:3], IDS[9], "nonsense"]) + "\n")
    finished = await shell.run("cancel", "wrong.txt")
    assert (finished.code, finished.out) == (1, "2 cancelled\nnot waiting: 1 of the given evaluations\n")
    assert "nonsense" in finished.err
    one = await shell.run("cancel", IDS[0], "--json")
    assert (one.code, json.loads(one.out)) == (0, {"cancelled": 1, "in_flight": 0, "not_waiting": 0})
    assert (await Ledger(redis).get_stats()).queued[Queue.LIVE] == 3
    other = json.loads((await shell.run("status", "other", "--json")).out)
    assert (other["total"], other["pending"], other["outcomes"]["cancelled"]) == (3, 0, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give either --run or evaluation IDs"),
        ((IDS[0], "--run", "q3"), "give either --run or evaluation IDs"),
        (("--run", "nobody-knows-it"), "there is no run nobody-knows-it"),
        (("--run", "../q3"), "the name of a run has"),
        (("--run", "q3", "--by", "two\nlines"), "--by"),
    ],
)
async def test_an_invalid_cancellation_prints_one_sentence(
    shell: Shell, redis: Redis, arguments: tuple[str, ...], message: str
) -> None:
    finished = await shell.run("cancel", *arguments)
    assert finished.code == 2
    assert message in finished.err
    assert await redis.dbsize() == 0


async def test_a_run_is_cancelled_even_if_the_archive_cannot_record_it(shell: Shell, redis: Redis) -> None:
    await shell.run("backfill", "ids.txt", "--run", "q3", "--detach")
    (shell.folder / "archive/runs/sandbox/q3/run.json").write_text("{}")
    finished = await shell.run("cancel", "--run", "q3")
    assert finished.code == 3
    assert "run q3 is cancelled, but its list in the archive does not record this" in finished.err
    assert (await Ledger(redis).runs.get_counters("q3")).pending == 0
