"""`backfill`, as a user runs it: plan, start, stop, resume, report."""

import asyncio
import csv
import io
import json
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from scripts.simulator.expected import demo_ids, expected_outcome
from scripts.simulator.options import SimulatorOptions
from scripts.simulator.scenarios import Scenario, eval_id_for, scenario_of
from scripts.simulator.server import Simulator, start_simulator
from tasks.ledger.ledger import Ledger
from tasks.model.evaluation import Evaluation
from tasks.model.outcome import Evidence
from tasks.storage.local_bucket import LocalBucket
from tests.archived_bundles import archive_tombstone
from tests.commands import KEY, Shell, finish, wait_until

PLAIN = [eval_id_for(Scenario.DOCUMENTED, number) for number in range(120)]


@pytest.fixture
async def riskos() -> AsyncIterator[Simulator]:
    async with await start_simulator(SimulatorOptions(api_key=KEY, image_bytes=3_000)) as simulator:
        yield simulator


@pytest.fixture
def local_shell(riskos: Simulator, tmp_path: Path) -> Shell:
    """Return a shell without a shared Redis and without workers."""
    settings = {
        "DOCV_API_KEY": KEY,
        "DOCV_RISKOS_URL": riskos.url,
        "DOCV_RATE": "200",
        "DOCV_DAILY_QUOTA": "1000000",
        "DOCV_RETRY_SECONDS": "0.3",
        "DOCV_ATTEMPTS": "3",
    }
    return Shell(tmp_path, settings)


@pytest.fixture
def shell(local_shell: Shell, redis: Redis, redis_url: str) -> Shell:
    """The same, with a Redis that workers share."""
    local_shell.settings["DOCV_REDIS_URL"] = redis_url
    return local_shell


def write(shell: Shell, *lines: str, name: str = "ids.csv") -> None:
    (shell.folder / name).write_text("\n".join(lines) + "\n")


async def test_a_list_is_archived_and_reported_without_redis_and_workers(local_shell: Shell, riskos: Simulator) -> None:
    ids = demo_ids(100)
    write(
        local_shell,
        "name,eval_id",
        *(f"one,{eval_id}" for eval_id in ids),
        "two,no-id",
        f"again,{ids[0].upper()}",
    )

    finished = await local_shell.run("backfill", "ids.csv", "--run", "q3", "--json")

    summary = json.loads(finished.out)
    expected = Counter(expected_outcome(scenario_of(eval_id)).value for eval_id in ids)
    assert {outcome: count for outcome, count in summary["outcomes"].items() if count} == expected
    assert (summary["run"], summary["total"], summary["pending"]) == ("q3", 100, 0)
    assert finished.code == 1
    assert "invalid lines, without an evaluation ID: 1; they are in ids.rejects.csv" in finished.err
    assert "evaluation: 1" in finished.err
    assert (local_shell.folder / "ids.rejects.csv").read_text().splitlines()[1].startswith("102,")

    report = await local_shell.run("report", "q3")
    rows = list(csv.DictReader(io.StringIO(report.out)))
    assert [row["eval_id"] for row in rows] == list(ids)
    assert Counter(row["outcome"] for row in rows) == expected
    for row in rows:
        path = local_shell.folder / "archive" / row["manifest"] if row["manifest"] else None
        assert (path is None) == (row["outcome"] == "failed")
        if path:
            manifest = json.loads(path.read_text())
            assert (str(len(manifest["documents"])), manifest["trigger"]["run"]) == (row["documents"], "q3")


async def test_a_plan_sends_no_requests_and_queues_nothing(local_shell: Shell, riskos: Simulator) -> None:
    write(local_shell, *PLAIN)
    finished = await local_shell.run("backfill", "ids.csv", "--dry-run", "--json")
    plan = json.loads(finished.out)
    assert (plan["ids"], plan["new"], plan["requests"], plan["puts"]) == (120, 120, 120, 480)
    assert plan["seconds"] == pytest.approx(120 / (200 * 0.9), abs=0.1)
    assert (finished.code, riskos.stats().requests) == (0, 0)
    assert [path.name for path in local_shell.folder.iterdir()] == ["ids.csv"]
    assert "nothing was queued" in (await local_shell.run("backfill", "ids.csv", "--dry-run")).err


async def test_a_plan_counts_a_manifest_without_a_docv_step_as_a_request(local_shell: Shell) -> None:
    bucket = LocalBucket(local_shell.folder / "archive")
    await archive_tombstone(bucket, Evaluation(PLAIN[0], "sandbox"), (Evidence.NO_DOCV_STEP,))
    await archive_tombstone(bucket, Evaluation(PLAIN[1], "sandbox"), (Evidence.MILITARY_ID,))
    write(local_shell, *PLAIN[:3])
    plan = json.loads((await local_shell.run("backfill", "ids.csv", "--dry-run", "--json")).out)
    assert (plan["archived_of_those"], plan["requests"]) == (2, 2)


async def test_the_same_ids_with_other_evidence_are_another_run(local_shell: Shell, riskos: Simulator) -> None:
    eval_id = eval_id_for(Scenario.NO_DOCUMENTS, 1)
    for kind in ("Passport", "Military", "Military"):
        write(local_shell, "eval_id,document_type", f"{eval_id},{kind}")
        assert (await local_shell.run("backfill", "ids.csv")).code == 0
    runs = {path.name for path in (local_shell.folder / "archive" / "runs" / "sandbox").iterdir()}
    assert len(runs) == 2
    report = json.loads((await local_shell.run("report", max(runs), "--json")).out)
    assert (report["outcome"], report["reason"], riskos.stats().requests) == ("no_documents", "military", 1)
    for run in runs:
        write(local_shell, "eval_id,reason_code", f"{eval_id},R844")
        refused = await local_shell.run("backfill", "ids.csv", "--run", run)
        assert (refused.code, "with other IDs or evidence" in refused.err) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--evidence-columns", "colour=kind"), "expected document_type=COL, reason_codes=COL, or both"),
        (("--evidence-columns", "document_type=hair"), "there is no column 'hair'; give --evidence-columns"),
        (("--event-at-column", "when"), "there is no column 'when'; give --event-at-column"),
    ],
)
async def test_missing_columns_are_reported_before_anything_is_queued(
    local_shell: Shell, arguments: tuple[str, ...], message: str
) -> None:
    write(local_shell, "eval_id,kind", f"{PLAIN[0]},Passport")
    finished = await local_shell.run("backfill", "ids.csv", *arguments)
    assert (finished.code, message in finished.err, "Traceback" in finished.err) == (2, True, False)
    assert not (local_shell.folder / "archive").exists()


async def test_no_column_is_read_as_evidence_with_evidence_columns_none(local_shell: Shell) -> None:
    write(local_shell, "eval_id,document_type,at", f"{PLAIN[0]},Military,yesterday")
    finished = await local_shell.run("backfill", "ids.csv", "--evidence-columns", "none", "--dry-run")
    assert "evidence" not in finished.err
    finished = await local_shell.run("backfill", "ids.csv", "--event-at-column", "at", "--dry-run")
    assert "evaluations with evidence for missing documents: 1\n" in finished.err
    assert "lines with a time that is not RFC 3339 with a zone: 1; the time is ignored\n" in finished.err


async def test_a_plan_counts_archived_evaluations(local_shell: Shell) -> None:
    write(local_shell, *PLAIN[:10], name="some.txt")
    write(local_shell, *PLAIN[:20])
    await local_shell.run("run", "some.txt")
    plan = json.loads((await local_shell.run("backfill", "ids.csv", "--dry-run", "--json")).out)
    assert (plan["looked_up"], plan["archived_of_those"], plan["requests"]) == (20, 10, 10)
    refreshed = json.loads((await local_shell.run("backfill", "ids.csv", "--dry-run", "--refresh", "--json")).out)
    assert refreshed["requests"] == 20
    some = await local_shell.run("backfill", "ids.csv", "--dry-run", "--refresh-outcome", "no_documents", "--json")
    assert json.loads(some.out)["requests"] == 10
    every = await local_shell.run("backfill", "ids.csv", "--dry-run", "--refresh-outcome", "archived", "--json")
    assert json.loads(every.out)["requests"] == 20


async def test_a_stopped_backfill_continues_when_it_is_started_again(local_shell: Shell, riskos: Simulator) -> None:
    local_shell.settings["DOCV_RATE"] = "40"
    write(local_shell, *PLAIN)
    process = await local_shell.start("backfill", "ids.csv", "--json")
    await wait_until(lambda: riskos.stats().requests > 15, process)
    process.terminate()
    stopped = await finish(process)
    assert stopped.code == 130
    assert "No evaluation is lost" in stopped.err
    before = riskos.stats().requests
    assert before < 120

    local_shell.settings["DOCV_RATE"] = "200"
    finished = await local_shell.run("backfill", "ids.csv", "--json")

    summary = json.loads(finished.out)
    assert finished.code == 0, finished.err
    assert "continues where it stopped" in finished.err
    assert (summary["total"], summary["outcomes"]["archived"]) == (120, 120)
    assert max(riskos.stats().by_evaluation.values()) == 1
    again = await local_shell.run("backfill", "ids.csv", "--json")
    assert json.loads(again.out)["outcomes"] == summary["outcomes"]
    assert riskos.stats().requests == 120


async def test_archived_evaluations_are_not_requested_again_when_redis_is_lost(
    local_shell: Shell, riskos: Simulator
) -> None:
    write(local_shell, *PLAIN[:30])
    await local_shell.run("backfill", "ids.csv", "--run", "q3")
    local_shell.settings["DOCV_STATE_DIR"] = "another"
    finished = await local_shell.run("backfill", "ids.csv", "--run", "q3", "--json")
    assert json.loads(finished.out)["outcomes"]["unchanged"] == 30
    assert riskos.stats().requests == 30


@pytest.mark.parametrize("command", ["backfill", "run"])
async def test_the_exit_code_is_3_when_redis_has_lost_the_run(shell: Shell, redis: Redis, command: str) -> None:
    shell.settings["DOCV_RATE"] = "40"
    write(shell, *PLAIN[:60])
    process = await shell.start(command, "ids.csv", "--json")
    async with asyncio.timeout(30):
        while not await Ledger(redis).runs.list_newest():
            await asyncio.sleep(0.05)
    await asyncio.sleep(1)
    await redis.flushall()
    lost = await finish(process)
    assert (lost.code, lost.out) == (3, "")
    assert "Redis has lost the run; run the same command again" in lost.err

    shell.settings["DOCV_RATE"] = "200"
    finished = await shell.run("run", "ids.csv", "--json")
    summary = json.loads(finished.out)
    assert (finished.code, summary["total"], summary["pending"]) == (0, 60, 0)


async def test_workers_finish_a_detached_backfill(shell: Shell, redis: Redis) -> None:
    shell.settings["DOCV_BACKLOG"] = "1000"
    write(shell, *PLAIN)
    finished = await shell.run("backfill", "ids.csv", "--run", "q3", "--detach", "--json")
    summary = json.loads(finished.out)
    assert (finished.code, summary["total"], summary["pending"]) == (0, 120, 120)
    assert summary["states"]["unfed"] == 120
    assert "left to the workers" in finished.err
    worker = await shell.start("worker")
    finishing = asyncio.create_task(finish(worker))
    async with asyncio.timeout(60):
        while (await Ledger(redis).runs.get_counters("q3")).pending:
            await asyncio.sleep(0.1)
    worker.terminate()
    await finishing
    assert (await shell.run("status", "q3")).code == 0


async def test_limit_and_sample_queue_only_some_of_the_ids(shell: Shell) -> None:
    write(shell, *PLAIN)
    first = json.loads((await shell.run("backfill", "ids.csv", "--limit", "7", "--detach", "--json")).out)
    some = json.loads((await shell.run("backfill", "ids.csv", "--sample", "9", "--detach", "--json")).out)
    same = json.loads((await shell.run("backfill", "ids.csv", "--sample", "9", "--detach", "--json")).out)
    assert (first["total"], some["total"]) == (7, 9)
    assert same["run"] == some["run"] != first["run"]
    assert first["run"].startswith("ids-")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("missing.csv",), "missing.csv"),
        (("ids.csv", "--column", "uuid"), "--column"),
        (("ids.csv", "--strict"), "--strict: nothing was queued"),
        (("ids.csv", "--run", "no name"), "the name of a run has"),
        (("ids.csv", "--limit", "0"), "--limit"),
        (("picture.jpg",), "binary"),
        (("empty.txt",), "no evaluation ID"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
async def test_an_invalid_backfill_prints_one_sentence_and_queues_nothing(
    shell: Shell, redis: Redis, arguments: tuple[str, ...], message: str
) -> None:
    write(shell, "name,eval_id", f"one,{PLAIN[0]}", "two,x")
    write(shell, name="empty.txt")
    (shell.folder / "picture.jpg").write_bytes(bytes(range(256)) * 100)
    finished = await shell.run("backfill", *arguments)
    assert finished.code == 2
    assert message in finished.err
    assert "Traceback" not in finished.err
    assert await redis.dbsize() == 0
    assert not (shell.folder / "archive" / "runs").exists()


async def test_a_run_name_that_is_in_use_is_refused(shell: Shell, redis: Redis) -> None:
    write(shell, *PLAIN[:5])
    write(shell, *PLAIN[5:9], name="other.csv")
    await shell.run("backfill", "ids.csv", "--run", "q3", "--detach")
    await shell.run("enqueue", PLAIN[50], "--run", "by-hand")
    for arguments in (
        ("other.csv", "--run", "q3"),
        ("ids.csv", "--run", "q3", "--refresh"),
        ("ids.csv", "--run", "q3", "--refresh-outcome", "rejected"),
    ):
        finished = await shell.run("backfill", *arguments, "--detach")
        assert finished.code == 2
        assert "choose another name with --run" in finished.err
    refused = await shell.run("backfill", "other.csv", "--run", "by-hand", "--detach")
    assert (refused.code, "choose another name" in refused.err) == (2, True)
    assert (await Ledger(redis).runs.get_counters("q3")).total == 5


async def test_a_detached_backfill_is_refused_without_a_redis_url(local_shell: Shell) -> None:
    write(local_shell, *PLAIN[:5])
    finished = await local_shell.run("backfill", "ids.csv", "--detach")
    assert finished.code == 2
    assert "DOCV_REDIS_URL" in finished.err


# A list with only refusals


REFUSED = [eval_id_for(Scenario.NO_DOCUMENTS, number) for number in range(450)]


async def test_a_list_with_only_refusals_is_put_on_hold_until_they_are_accepted(
    local_shell: Shell, riskos: Simulator
) -> None:
    write(local_shell, *REFUSED)
    stopped = await local_shell.run("backfill", "ids.csv", "--run", "q3", "--json")
    assert stopped.code == 1
    assert "docv-archive resume --run q3 --accept-refusals" in stopped.err
    assert REFUSED[0][:8] in stopped.err
    summary = json.loads(stopped.out)
    assert summary["on_hold"] == "only_refusals"
    assert summary["outcomes"]["no_documents"] + summary["pending"] == 450
    # Evaluations in flight are still finished.
    assert riskos.stats().requests == summary["outcomes"]["no_documents"] <= 200 + 64

    assert (await local_shell.run("backfill", "ids.csv", "--run", "q3")).code == 1
    assert (await local_shell.run("resume")).out.startswith(
        "run q3 stays on hold (only_refusals), until `docv-archive resume"
    )
    assert "run q3" in (await local_shell.run("status")).out
    status = await local_shell.run("status", "q3", "--json")
    assert (status.code, json.loads(status.out)["on_hold"]) == (1, "only_refusals")
    assert riskos.stats().requests == summary["outcomes"]["no_documents"]

    resumed = await local_shell.run("resume", "--run", "q3", "--accept-refusals")
    assert (resumed.code, resumed.err) == (0, "")
    assert resumed.out.startswith("run q3 continues")
    ended = await local_shell.run("backfill", "ids.csv", "--run", "q3", "--json")
    assert ended.code == 0
    assert json.loads(ended.out)["outcomes"]["no_documents"] == 450
    assert riskos.stats().requests == 450


@pytest.mark.parametrize("command", ["run", "backfill"])
async def test_accepted_refusals_do_not_stop_a_run_or_backfill(local_shell: Shell, command: str) -> None:
    write(local_shell, *REFUSED)
    ended = await local_shell.run(command, "ids.csv", "--accept-refusals", "--json")
    assert ended.code == 0
    assert json.loads(ended.out)["outcomes"]["no_documents"] == 450


async def test_a_run_with_only_refusals_exits_with_1_and_prints_the_option_to_accept_them(local_shell: Shell) -> None:
    write(local_shell, *REFUSED)
    stopped = await local_shell.run("run", "ids.csv")
    assert stopped.code == 1
    assert "--accept-refusals" in stopped.err
    assert "pending" in stopped.out


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--accept-refusals",), "give --run"),
        (("--run", "q3"), "continues only with --accept-refusals"),
        (("--run", "q3", "--accept-refusals"), "run q3 is not on hold for its refusals"),
        (("--run", "q 3", "--accept-refusals"), "the name of a run"),
        (("--run", "q3", "--accept-refusals", "--account", "default"), "leave out --account"),
    ],
)
async def test_an_invalid_resume_prints_one_sentence(shell: Shell, options: tuple[str, ...], sentence: str) -> None:
    finished = await shell.run("resume", *options)
    assert (finished.code, finished.out) == (2, "")
    assert sentence in finished.err
