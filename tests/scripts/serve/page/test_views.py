"""The views list all entries, in pages, and escape all values."""

import re
from pathlib import Path

import pytest
from redis.asyncio import Redis

from tasks.ledger.ledger import Ledger
from tasks.ledger.worker_registry import WorkerRegistry
from tasks.model.job import EnqueueOptions, Failure, Queue, Trigger
from tasks.model.outcome import ManifestOutcome, Outcome
from tests.archives import eval_ids
from tests.scripts.serve.conftest import OPERATOR, running_client, settings_for
from tests.scripts.serve.page.conftest import HTML, PageUser, add_dead_letters, fill_redis

PATHS = ("/", "/page/now", "/page/runs", "/page/dead-letters", "/page/dead-letters?cause=service_failed")


def text_of(body: bytes) -> str:
    return " ".join(re.sub(r"<[^>]*>", " ", body.decode()).split())


async def test_the_overview_shows_everything_that_is_under_way(operator: PageUser, redis: Redis) -> None:
    await fill_redis(redis, eval_ids(20))
    text = text_of((await operator.get_page("/")).body)
    assert "4 evaluations under way, 10 dead letters, 1 on hold." in text
    assert "Account default is on hold" in text
    assert "Paused by an operator" in text
    assert "Backfill queue 4 no workers, oldest" in text
    assert "0 of 10/s from the settings" in text
    assert re.search(r"2026-q3 .*1 Archived .*1 No documents .* 10 4 on hold", text)
    assert re.search(r"RiskOS failed RiskOS answered with 408 or a server error 6 Redrive", text)


async def test_a_run_shows_the_former_outcomes_of_unchanged_evaluations(
    operator: PageUser, redis: Redis, eval_id: str
) -> None:
    ledger = Ledger(redis)
    await ledger.accept([eval_id], EnqueueOptions(Queue.BACKFILL, "default", Trigger("run", run="2026-q3")))
    (entry,) = await ledger.lease([eval_id], token="a-token")
    await ledger.complete(entry, Outcome.UNCHANGED, ManifestOutcome.NOT_FOUND)
    for path in ("/", "/page/runs"):
        assert "1 Unchanged (1 Not found )" in text_of((await operator.get_page(path)).body)


async def test_the_overview_reports_damaged_entries(operator: PageUser, redis: Redis) -> None:
    await redis.hset("docv:ledger:damaged", eval_ids(1)[0], "no JSON")
    assert "1 damaged entry in Redis cannot be read: see docv-archive dead-letters list" in text_of(
        (await operator.get_page("/")).body
    )


async def test_the_overview_shows_a_paused_worker_with_its_reason(operator: PageUser, redis: Redis) -> None:
    workers = WorkerRegistry(redis)
    await workers.heartbeat("one", [Queue.LIVE])
    await workers.pause("one", "@archive", "cannot_write", "the disk of DOCV_STATE_DIR is full")
    text = text_of((await operator.get_page("/")).body)
    assert "Worker one has paused" in text
    assert "the disk of DOCV_STATE_DIR is full" in text


async def test_the_overview_shows_why_the_next_evaluation_is_parked(
    operator: PageUser, redis: Redis, eval_id: str
) -> None:
    ledger = Ledger(redis)
    await ledger.accept([eval_id], EnqueueOptions(Queue.LIVE, "default", Trigger("event")))
    (job,) = await ledger.lease([eval_id], token="a-token")
    await ledger.retry_later(job, wait=90, attempts=1, failure=Failure("store_failed", "the clock differs"))
    assert "s: the clock differs" in text_of((await operator.get_page("/")).body)


async def test_the_time_left_of_a_run_equals_that_of_status(operator: PageUser, redis: Redis) -> None:
    options = EnqueueOptions(Queue.BACKFILL, "default", Trigger("run", run="2026-q3"))
    await Ledger(redis).accept(eval_ids(900), options)
    assert "2026-q3 900 900 1 min 40 s" in text_of((await operator.get_page("/")).body)


@pytest.mark.parametrize("path", [*PATHS, "/page/resume?scope=default"])
async def test_html_in_values_is_escaped(operator: PageUser, redis: Redis, path: str) -> None:
    await fill_redis(redis, eval_ids(20))
    await add_dead_letters(redis, eval_ids(1, seed=2), run=HTML)
    body = (await operator.get_page(path)).body.decode()
    assert "<img" not in body
    assert "&lt;img" in body or "cause=service_failed" in path


async def test_an_id_with_html_is_refused_and_escaped(operator: PageUser) -> None:
    answer = await operator.get_page("/page/evaluation?id=%3Cscript%3Ealert(1)%3C/script%3E")
    assert answer.status == 400
    assert "<script>alert" not in answer.body.decode()
    assert "expected a UUID" in answer.body.decode()


@pytest.mark.parametrize("path", [*PATHS, "/page/evaluation"])
async def test_every_page_has_the_strict_policy_and_is_not_cached(operator: PageUser, redis: Redis, path: str) -> None:
    answer = await operator.get_page(path)
    policy = answer.headers["Content-Security-Policy"].split("; ")
    assert policy == [
        "default-src 'none'",
        *(f"{kind}-src 'self'" for kind in ("script", "style", "img", "connect")),
        "form-action 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
    ]
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    body = answer.body.decode()
    assert not re.search(r"\sstyle=|\son\w+=|<style|<script(?! defer src=)|javascript:", body)


async def test_a_viewer_sees_no_buttons(viewer: PageUser, redis: Redis) -> None:
    await fill_redis(redis, eval_ids(20))
    for path in PATHS:
        text = text_of((await viewer.get_page(path)).body)
        assert not re.search(r"Redrive|Drop|Resume", text)


async def test_a_read_only_page_has_no_buttons(redis: Redis, redis_url: str, tmp_path: Path) -> None:
    await fill_redis(redis, eval_ids(20))
    async with running_client(settings_for(redis_url, tmp_path), read_only=True) as client:
        for path in PATHS:
            text = text_of((await PageUser(client, OPERATOR).get_page(path)).body)
            assert not re.search(r"Redrive|Drop|Resume", text)


async def test_an_unchanged_overview_is_not_sent_again(operator: PageUser, redis: Redis) -> None:
    first = (await operator.get_page("/")).body.decode()
    [path] = re.findall(r'hx-get="(/page/now\?seen=\w+)"', first)
    assert (await operator.get_page(path)).status == 204
    again = await operator.get_page("/page/now?seen=of-yesterday")
    assert again.status == 200
    assert again.body.startswith(b'<div id="now" hx-get=')
    assert path in again.body.decode()


async def test_a_paused_page_does_not_update_automatically(operator: PageUser) -> None:
    body = (await operator.get_page("/?still")).body.decode()
    assert "hx-get" not in body
    assert "http-equiv" not in body
    assert "Resume updates" in body


async def test_the_overview_reloads_without_javascript(operator: PageUser) -> None:
    assert (
        '<noscript><meta http-equiv="refresh" content="30"></noscript>' in (await operator.get_page("/")).body.decode()
    )


async def test_runs_are_paged_and_the_overview_stays_small(operator: PageUser, redis: Redis) -> None:
    async with redis.pipeline(transaction=False) as pipe:
        for number in range(1_000):
            pipe.zadd("docv:ledger:runs", {f"run-{number}": number})
            pipe.hset(f"docv:ledger:run:run-{number}", mapping={"total": 20, "archived": 12, "queued": 8})
        await pipe.execute()
    first = (await operator.get_page("/")).body
    assert len(first) < 30_000
    assert "All 1,000 runs" in text_of(first)
    page = text_of((await operator.get_page("/page/runs?skip=950")).body)
    assert "951 to 1,000 of 1,000" in page
    assert [number for number in range(1_000) if f" run-{number} " in page] == [*range(50)]
    runs = (await operator.get_page("/page/runs")).body.decode()
    assert 'href="/page/runs?skip=50"' in runs
    assert 'rel="prev"' not in runs


async def test_dead_letters_are_paged_and_only_one_page_is_read(operator: PageUser, redis: Redis) -> None:
    ids = eval_ids(400)
    await add_dead_letters(redis, ids)
    commands = (await redis.info("commandstats")).copy()
    answer = await operator.get_page("/page/dead-letters?cause=service_failed&skip=350")
    page = text_of(answer.body)
    after = await redis.info("commandstats")
    assert "351 to 400 of 400" in page
    assert sum(eval_id in page for eval_id in ids) == 50
    assert len(answer.body) < 60_000
    for command in ("cmdstat_hscan", "cmdstat_hgetall", "cmdstat_scan", "cmdstat_keys"):
        assert after.get(command, {}).get("calls") == commands.get(command, {}).get("calls")


@pytest.mark.parametrize("skip", ["-1", "x", "9" * 40, "", "٣"])
async def test_an_invalid_position_shows_the_first_page(operator: PageUser, redis: Redis, skip: str) -> None:
    await add_dead_letters(redis, eval_ids(1))
    page = text_of((await operator.get_page(f"/page/dead-letters?cause=service_failed&skip={skip}")).body)
    assert "1 to 1 of 1" in page


async def test_an_unknown_cause_shows_an_empty_page(operator: PageUser) -> None:
    assert "No dead letters with this cause here." in text_of(
        (await operator.get_page("/page/dead-letters?cause=x")).body
    )
