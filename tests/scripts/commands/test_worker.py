"""Worker processes that share a Redis: their common rate, shutdown, crashes, messages, logs and metrics."""

import asyncio
import json
import signal
import time
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from redis.asyncio import Redis

from scripts.simulator.expected import demo_ids, expected_outcome
from scripts.simulator.options import SimulatorOptions
from scripts.simulator.scenarios import LAYOUTS, Scenario, eval_id_for, scenario_of
from scripts.simulator.server import Simulator, start_simulator
from tasks.ledger.ledger import Ledger
from tasks.model.outcome import Outcome
from tests.aging import age_queued_evaluations
from tests.commands import KEY, Shell, finish
from tests.counting import samples
from worker.app import make_publishing_app
from worker.broker.envelope import ARCHIVE_TASK
from worker.config.settings import load_settings

RATE = 40
PLAIN = tuple(LAYOUTS)


@pytest.fixture
async def riskos() -> AsyncIterator[Simulator]:
    async with await start_simulator(SimulatorOptions(api_key=KEY, image_bytes=3_000)) as simulator:
        yield simulator


@pytest.fixture
def shell(riskos: Simulator, redis: Redis, redis_url: str, tmp_path: Path) -> Shell:
    return Shell(
        tmp_path,
        {
            "DOCV_API_KEY": KEY,
            "DOCV_RISKOS_URL": riskos.url,
            "DOCV_REDIS_URL": redis_url,
            "DOCV_RATE": str(RATE),
            "DOCV_BACKFILL_SHARE": "1",
            "DOCV_DAILY_QUOTA": "100000",
            "DOCV_ATTEMPTS": "2",
            "DOCV_RETRY_SECONDS": "1",
            "DOCV_LEASE_SECONDS": "4",
        },
    )


async def wait_until(count: Callable[[], Awaitable[int]], minimum: int) -> None:
    """Wait until a number in Redis is at least this large."""
    async with asyncio.timeout(60):
        while await count() < minimum:
            await asyncio.sleep(0.05)


@asynccontextmanager
async def workers(shell: Shell, count: int) -> AsyncIterator[list[asyncio.subprocess.Process]]:
    """Run worker processes; at the end, each must stop without an error."""
    processes = [await shell.start("worker") for _ in range(count)]
    finishing = [asyncio.create_task(finish(process, seconds=110)) for process in processes]
    try:
        yield processes
    finally:
        for process in processes:
            if process.returncode is None:
                process.terminate()
        ended = await asyncio.gather(*finishing)
    for finished in ended:
        assert finished.code in {0, -signal.SIGKILL}, finished.err
        assert KEY not in finished.err


async def wait_for_run(shell: Shell, redis: Redis, run: str, total: int, seconds: float = 60) -> dict[str, int]:
    """Wait until a run is over; return its outcomes, as `status` shows them."""
    ledger = Ledger(redis)
    async with asyncio.timeout(seconds):
        while (counters := await ledger.runs.get_counters(run)).pending or counters.total < total:
            await asyncio.sleep(0.1)
    summary = json.loads((await shell.run("status", run, "--json")).out)
    assert (summary["run"], summary["total"], summary["pending"]) == (run, total, 0)
    return {outcome: count for outcome, count in summary["outcomes"].items() if count}


async def wait_for_requests(riskos: Simulator, requests: int) -> None:
    """Wait until RiskOS has received this many requests."""
    async with asyncio.timeout(60):
        while riskos.stats().requests < requests:
            await asyncio.sleep(0.02)


async def test_two_workers_together_keep_the_rate_and_finish_every_evaluation(
    shell: Shell, riskos: Simulator, redis: Redis
) -> None:
    eval_ids = demo_ids(160)
    (shell.folder / "ids.txt").write_text("\n".join(eval_ids))

    async with workers(shell, 2):
        enqueued = await shell.run("enqueue", "ids.txt", "--queue", "backfill", "--run", "q3", "--json")
        assert json.loads(enqueued.out)["accepted"] == 160
        await wait_for_requests(riskos, 10)
        before, began = riskos.stats().requests, time.monotonic()
        await wait_for_requests(riskos, 150)
        requests, elapsed = riskos.stats().requests - before, time.monotonic() - began
        outcomes = await wait_for_run(shell, redis, "q3", 160)

    expected = [expected_outcome(scenario_of(eval_id)) for eval_id in eval_ids]
    assert outcomes == {outcome.value: expected.count(outcome) for outcome in set(expected)}
    # Workers with a rate each would send twice as many. A busy machine delays requests and sends them together.
    assert requests <= 1.5 * RATE * elapsed
    for eval_id in eval_ids:
        if expected_outcome(scenario_of(eval_id)) is Outcome.NO_DOCUMENTS:
            assert riskos.stats().by_evaluation[eval_id] == 1


async def test_another_worker_finishes_the_evaluations_of_a_killed_one(
    shell: Shell, riskos: Simulator, redis: Redis
) -> None:
    eval_ids = [eval_id_for(PLAIN[number % len(PLAIN)], 20_000 + number) for number in range(120)]
    (shell.folder / "ids.txt").write_text("\n".join(eval_ids))
    riskos.change(latency_ms=100)
    async with workers(shell, 2) as (victim, _):
        await shell.run("enqueue", "ids.txt", "--run", "killed")
        await wait_for_requests(riskos, 30)
        victim.kill()
        await asyncio.sleep(4)  # until the leases of the killed worker expire
        await age_queued_evaluations(redis)
        outcomes = await wait_for_run(shell, redis, "killed", 120)
    assert outcomes.get("archived", 0) + outcomes.get("unchanged", 0) == 120
    assert len(list((shell.folder / "archive").rglob("manifest.json"))) == 120


async def test_a_stopped_worker_releases_its_evaluations_and_the_next_one_continues_at_once(
    shell: Shell, riskos: Simulator, redis: Redis
) -> None:
    eval_ids = [eval_id_for(PLAIN[number % len(PLAIN)], 30_000 + number) for number in range(100)]
    shell.settings["DOCV_LEASE_SECONDS"] = "600"  # the test would fail if it had to wait for a lease to expire
    (shell.folder / "ids.txt").write_text("\n".join(eval_ids))
    async with workers(shell, 1):
        await shell.run("enqueue", "ids.txt", "--run", "rolling")
        await wait_for_requests(riskos, 20)
    assert riskos.stats().requests < 100
    async with workers(shell, 1):
        outcomes = await wait_for_run(shell, redis, "rolling", 100)
    assert outcomes == {"archived": 100}
    assert max(riskos.stats().by_evaluation.values()) == 1


async def test_a_worker_stopped_twice_aborts_transfers_and_the_next_one_continues_at_once(
    shell: Shell, riskos: Simulator, redis: Redis
) -> None:
    eval_ids = [eval_id_for(Scenario.SLOW_BODY, 35_000 + number) for number in range(4)]
    shell.settings |= {"DOCV_LEASE_SECONDS": "600", "DOCV_DRAIN_SECONDS": "600"}
    riskos.change(slow_seconds=600)
    async with workers(shell, 1) as (worker,):
        await shell.run("enqueue", *eval_ids, "--run", "hurried")
        await wait_for_requests(riskos, 4)
        worker.terminate()
        await asyncio.sleep(1)
        assert worker.returncode is None, "transfers may finish"
        worker.terminate()
        await asyncio.wait_for(worker.wait(), 30)
    riskos.change(slow_seconds=0.1)
    async with workers(shell, 1):
        assert await wait_for_run(shell, redis, "hurried", 4) == {"archived": 4}


async def test_a_producer_needs_only_celery(shell: Shell, riskos: Simulator, redis_url: str, redis: Redis) -> None:
    eval_id = eval_id_for(Scenario.DOCUMENTED, 40_000)
    app = make_publishing_app(load_settings(redis_url=redis_url))
    app.send_task(ARCHIVE_TASK, kwargs={"eval_ids": [eval_id, "no-id"], "run": "producer"}, queue="live")
    app.send_task(ARCHIVE_TASK, kwargs={"eval_id": eval_id}, queue="live")
    app.send_task(ARCHIVE_TASK, args=[[eval_id]], queue="backfill")
    app.close()
    async with workers(shell, 1):
        outcomes = await wait_for_run(shell, redis, "producer", 1)
    assert outcomes == {"archived": 1}
    assert await redis.llen("docv:live") == await redis.llen("docv:backfill") == 0
    manifest = json.loads((shell.folder / "archive" / "sandbox" / eval_id / "manifest.json").read_text())
    assert manifest["trigger"] == {"source": "message", "run": "producer", "event_type": None, "event_id": None}


@pytest.mark.parametrize("settings", [{}, {"DOCV_CONCURRENCY": "1"}], ids=["many slots", "one slot"])
async def test_a_live_evaluation_does_not_wait_behind_a_backfill_in_the_same_worker(
    shell: Shell, riskos: Simulator, redis: Redis, settings: dict[str, str]
) -> None:
    shell.settings |= {"DOCV_RATE": "8", "DOCV_BACKFILL_SHARE": "0.9"} | settings
    backfill = [eval_id_for(Scenario.DOCUMENTED, 42_000 + number) for number in range(400)]
    ledger = Ledger(redis)
    async with workers(shell, 1):
        await shell.run("enqueue", "-", "--queue", "backfill", "--run", "old", given="\n".join(backfill))
        await wait_for_requests(riskos, 5)
        await shell.run("enqueue", eval_id_for(Scenario.DOCUMENTED, 43_000), "--run", "new")
        async with asyncio.timeout(60):
            while (await ledger.runs.get_counters("new")).pending:
                await asyncio.sleep(0.05)
        old = await ledger.runs.get_counters("old")
    # At 7 per second, the backfill takes a minute. Behind a hundred of its evaluations, the live one would wait 14 s.
    assert old.total - old.pending < 100


async def test_an_invalid_message_is_kept_as_a_rejected_message_and_the_worker_continues(
    shell: Shell, riskos: Simulator, redis_url: str, redis: Redis
) -> None:
    eval_id, secret = eval_id_for(Scenario.DOCUMENTED, 41_000), "Erika Mustermann"
    app = make_publishing_app(load_settings(redis_url=redis_url))
    app.send_task("another.task", kwargs={"applicant": secret}, queue="live")
    app.send_task(ARCHIVE_TASK, kwargs={"eval_ids": [secret], "run": "odd"}, queue="live")
    app.send_task(ARCHIVE_TASK, kwargs={"eval_ids": [eval_id], "applicant": secret}, queue="backfill")
    for entry in (secret, "[1, 2]", "[" * 100_000, '{"properties": {}}', "null"):
        await redis.lpush("docv:live", entry)
        await redis.lpush("docv:backfill", entry)
    app.send_task(ARCHIVE_TASK, kwargs={"eval_ids": [eval_id], "run": "odd"}, queue="live")
    app.close()
    async with workers(shell, 1) as (worker,):
        assert await wait_for_run(shell, redis, "odd", 1) == {"archived": 1}
        assert worker.returncode is None
        await wait_until(lambda: redis.xlen("docv:refusals"), 13)

    listed = await shell.run("dead-letters", "list", "--json")
    refused = [json.loads(line) for line in listed.out.splitlines()]
    causes = Counter(each["cause"] for each in refused)
    assert causes == {"bad_message": 12, "bad_eval_id": 1}
    assert {each["why"] for each in refused if each["source"] == "live"} >= {
        "an ID is not a valid evaluation ID: expected a UUID such as 0b54a4d4-6e5b-4f3c-9d2a-7c1f0e8b9a10"
    }
    assert secret not in listed.out
    table = await shell.run("dead-letters", "list", "--cause", "bad_message")
    assert "12 rejected messages" in table.out
    dropped = await shell.run("dead-letters", "drop", "--yes")
    assert "13 dropped" in dropped.out
    assert await redis.xlen("docv:refusals") == 0


async def test_an_evaluation_has_one_manifest_when_it_is_enqueued_three_times_at_once(
    shell: Shell, riskos: Simulator, redis: Redis
) -> None:
    eval_ids = [eval_id_for(PLAIN[number % len(PLAIN)], 50_000 + number) for number in range(60)]
    (shell.folder / "ids.txt").write_text("\n".join(eval_ids))
    async with workers(shell, 2):
        await asyncio.gather(*(shell.run("enqueue", "ids.txt", "--run", f"copy-{n}") for n in range(3)))
        for number in range(3):
            outcomes = await wait_for_run(shell, redis, f"copy-{number}", 60)
            assert sum(outcomes.values()) == 60
    for eval_id in eval_ids:
        assert riskos.stats().by_evaluation[eval_id] == 1
        manifest = json.loads((shell.folder / "archive" / "sandbox" / eval_id / "manifest.json").read_text())
        assert manifest["revision"] == 1


async def test_workers_can_be_started_with_the_celery_command(shell: Shell, redis: Redis) -> None:
    eval_id = eval_id_for(Scenario.DOCUMENTED, 60_000)
    shell.settings["DOCV_LOG_LEVEL"] = "DEBUG"
    command = ("-A", "worker.app", "worker", "--hostname")
    two = [await shell.start_in_new_interpreter(*command, f"{name}@here", module="celery") for name in ("one", "other")]
    try:
        # Unlike `docv-archive worker`, Celery's command enables heartbeats between workers. They arrive like messages.
        await asyncio.wait_for(asyncio.gather(*(wait_for_output(celery, b"joined the party") for celery in two)), 60)
        await shell.run("enqueue", eval_id, "--run", "by-celery")
        assert await wait_for_run(shell, redis, "by-celery", 1) == {"archived": 1}
    finally:
        for celery in two:
            celery.terminate()
        codes = [(await finish(celery)).code for celery in two]
    assert codes == [0, 0]


async def test_a_worker_does_not_start_if_the_schedule_cannot_be_read(shell: Shell) -> None:
    shell.settings["DOCV_RETENTION"] = "missing.toml"
    worker = await shell.run("worker")
    assert worker.code == 2
    assert worker.err.endswith("DOCV_RETENTION: missing.toml cannot be read: No such file or directory\n")


async def test_a_worker_does_not_store_documents_that_are_already_due_for_disposal(
    shell: Shell, riskos: Simulator
) -> None:
    (shell.folder / "retention.toml").write_text('[[rule]]\nname = "a"\nkeep_for = "3y"\nclock = "captured"\n')
    shell.settings["DOCV_RETENTION"] = "retention.toml"
    old, new = (eval_id_for(Scenario.DOCUMENTED, number) for number in (30_001, 30_002))
    (shell.folder / "ids.csv").write_text(f"eval_id,event_at\n{old},2015-06-30T12:00:00Z\n{new},\n")
    column = "--event-at-column", "event_at"
    async with workers(shell, 1):
        for options, outcomes in (((), {"archived": 1, "withheld": 1}), (("--refresh",), {"unchanged": 2})):
            found = await shell.run("backfill", "ids.csv", *column, "--run", f"q{len(options)}", "--json", *options)
            assert {name: count for name, count in json.loads(found.out)["outcomes"].items() if count} == outcomes
            assert found.code == 0
    assert riskos.stats().by_evaluation == {old: 2, new: 2}
    folder = shell.folder / "archive" / "sandbox"
    assert [path.name for path in (folder / old).rglob("*") if path.is_file()] == ["manifest.json"]
    assert list((folder / new).rglob("*.jpg"))


async def wait_for_output(process: asyncio.subprocess.Process, words: bytes) -> None:
    """Wait until a process has printed something, or has ended."""
    assert process.stderr is not None
    while (line := await process.stderr.readline()) and words not in line:
        pass


async def test_the_celery_command_reports_a_missing_setting_in_one_sentence(shell: Shell) -> None:
    del shell.settings["DOCV_API_KEY"]
    finished = await finish(
        await shell.start_in_new_interpreter("-A", "worker.app", "worker", module="celery"), seconds=60
    )
    assert finished.code == 2
    assert "DOCV_API_KEY is not set" in finished.err
    assert "Traceback" not in finished.err


async def test_a_worker_serves_its_metrics_and_answers_celery_tools_when_enabled(
    shell: Shell, redis: Redis, redis_url: str
) -> None:
    eval_id = eval_id_for(Scenario.DOCUMENTED, 70_000)
    shell.settings |= {"DOCV_METRICS_PORT": "0", "DOCV_CELERY_EVENTS": "1"}
    app = make_publishing_app(load_settings(redis_url=redis_url, celery_events=True))
    worker = await shell.start("worker")
    try:
        url = await read_metrics_url(worker)
        finishing = asyncio.create_task(finish(worker, seconds=110))
        # A message that Celery did not send does not stop a worker, either.
        async with asyncio.timeout(60):
            while not await redis.pubsub_numpat():
                await asyncio.sleep(0.05)
        for noise in ("[" * 10_000, "null", "{}", '{"properties": {"delivery_info": {}, "delivery_tag": "x"}}'):
            assert await redis.publish("docv:/0.celery.pidbox", noise) == 1
        pings, events = await asyncio.gather(
            asyncio.to_thread(ping_workers, app), asyncio.to_thread(collect_events, app, eval_id)
        )
        page = await asyncio.to_thread(fetch, f"{url}/metrics")
        alive = await asyncio.to_thread(fetch, f"{url}/livez")
        shell.settings["DOCV_METRICS_PORT"] = url.rpartition(":")[2]
        second = await finish(await shell.start("worker"), seconds=60)
    finally:
        if worker.returncode is None:
            worker.terminate()
    finished = await finishing
    assert (finished.code, alive) == (0, "alive\n"), finished.err
    assert [list(answer.values()) for answer in pings] == [[{"ok": "pong"}]]
    assert {"task-received", "task-started", "task-succeeded"} <= events
    found = samples(page)
    assert found['docv_evaluations_total{outcome="archived",queue="live"}'] == 1
    counted = {
        each for each in Outcome if f'docv_evaluations_total{{outcome="{each.value}",queue="backfill"}}' in found
    }
    assert counted == set(Outcome) - {Outcome.CANCELLED}, "each outcome of a worker is exported from the start"
    assert found["docv_live_lag_seconds_count"] == 1
    assert found["docv_redis_up"] == 1
    assert found['docv_queue_workers{queue="live"}'] == 1
    assert found["docv_event_loop_lag_seconds_count"] >= 1
    assert eval_id not in page
    assert second.code == 3
    assert "Traceback" not in second.err
    # Celery prints a warning before it if the user is root.
    address = url.removeprefix("http://")
    assert second.err.splitlines()[-1].startswith(f"{address} cannot be used (Address already in use): give")


async def read_metrics_url(worker: asyncio.subprocess.Process) -> str:
    """Return the URL of a worker's metrics, from a line of its log."""
    assert worker.stderr
    async with asyncio.timeout(60):
        while b'"metrics.started"' not in (line := await worker.stderr.readline()):
            assert line, "the worker ended"
    return str(json.loads(line)["url"])


def fetch(url: str) -> str:
    with urllib.request.urlopen(url, timeout=20) as answer:  # noqa: S310
        return str(answer.read().decode())


def ping_workers(app: Celery) -> list[dict[str, dict[str, str]]]:
    """Return the answers of workers to Celery's own ping; repeat it until one answers."""
    for _ in range(30):
        if answers := app.control.ping(timeout=1.0, limit=1):
            return list(answers)
    return []


def collect_events(app: Celery, eval_id: str) -> set[str]:
    """Send a task, and return the types of the events that Celery's own receiver gets until it has succeeded."""
    types: set[str] = set()
    with app.connection_for_read() as connection:

        def collect(event: dict[str, Any]) -> None:
            if not types:
                app.send_task(ARCHIVE_TASK, kwargs={"eval_ids": [eval_id]}, queue="live")
            types.add(event["type"])
            receiver.should_stop = event["type"] == "task-succeeded"

        receiver = app.events.Receiver(connection, handlers={"*": collect})
        receiver.capture(limit=None, timeout=60, wakeup=False)
    return types


async def test_every_log_line_of_a_worker_is_json(shell: Shell) -> None:
    process = await shell.start("worker")
    assert process.stderr
    first = []
    while not first or b" ready." not in first[-1]:
        first.append(await process.stderr.readline())
    process.terminate()
    finished = await finish(process)
    assert finished.out == ""
    events = [json.loads(line) for line in (*first, *finished.err.splitlines())]
    assert all({"event", "level", "timestamp"} <= event.keys() for event in events)
