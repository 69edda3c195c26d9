"""The page of a run: its origin, progress, failures, rejected lines, report, and the actions of an operator."""

import asyncio
import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import make_mocked_request
from redis.asyncio import Redis

from scripts.serve.http.responses import HTTPError
from scripts.serve.page import run_view
from scripts.serve.page.run_view import RunView
from tasks.ledger.ledger import Ledger
from tasks.model.job import EnqueueOptions, Queue, Trigger
from tasks.model.outcome import Outcome
from tasks.storage.local_bucket import LocalBucket
from tasks.storage.run_list import RunSource, store_run_list
from tests.archives import archive, eval_ids, store_run
from tests.scripts.serve.page.conftest import HTML, PageUser, add_dead_letters
from tests.scripts.serve.page.test_views import text_of


async def begin_run(redis: Redis, folder: Path, ids: Sequence[str], fed: int) -> LocalBucket:
    """Begin the run q4 with a list whose file had two bad lines, and feed the first IDs."""
    bucket, ledger = LocalBucket(folder / "archive"), Ledger(redis)
    source = RunSource(name="my_ids.csv", fingerprint="a" * 64, ids=len(ids), repeated=1, bad=2)
    facts = {"run": "q4", "environment": "sandbox", "account": "default", "refresh": False, "by": "someone"}
    run_list = await store_run_list(bucket, ids, source=source, **facts)  # type: ignore[arg-type]
    await ledger.runs.begin("q4", total=len(ids), fingerprint=run_list.fingerprint)
    options = EnqueueOptions(Queue.BACKFILL, "default", Trigger("backfill", run="q4"))
    await ledger.runs.feed("q4", ids[:fed], options, position=0, backlog=100)
    return bucket


async def test_a_run_in_the_overview_links_to_its_view(operator: PageUser, redis: Redis, tmp_path: Path) -> None:
    await begin_run(redis, tmp_path, eval_ids(4), 3)
    for path in ("/", "/page/runs"):
        assert 'href="/page/run?run=q4"' in (await operator.get_page(path)).body.decode()
    answer = await operator.get_page("/page/run?run=q4")
    text = text_of(answer.body)
    assert "0 of 4 evaluations finished; about 0 s left." in text
    assert "Not queued yet 1" in text
    assert "Queued 3 Waiting for a worker" in text
    assert "by someone" in text
    assert "my_ ids.csv: 4 evaluations, 1 repeated line" in text
    assert "Rejected lines 2 , without an evaluation ID" in text
    assert 'href="/page/cancel?run=q4"' in answer.body.decode()
    assert 'href="/page/report?run=q4"' in answer.body.decode()


async def test_the_view_lists_failures_with_their_causes(operator: PageUser, redis: Redis) -> None:
    ids = eval_ids(6)
    await add_dead_letters(redis, ids[:2], run="q3")
    await add_dead_letters(redis, ids[2:3], "bundle_too_large", run="q3")
    await add_dead_letters(redis, ids[3:], run="another")
    text = text_of((await operator.get_page("/page/run?run=q3")).body)
    assert "3 need attention." in text
    assert "RiskOS failed RiskOS answered with 408 or a server error 2" in text
    assert "Bundle too large The bundle is larger than DOCV_MAX_BUNDLE_BYTES 1" in text
    assert [eval_id in text for eval_id in ids] == [True] * 3 + [False] * 3
    assert re.search(r"RiskOS answered with status 503 6 (just now|\d+ s ago) q3", text)
    assert "none, so there is no report" in text


async def test_the_view_searches_only_the_newest_dead_letters_of_each_cause(
    operator: PageUser, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_view, "_CHUNK", 2)
    monkeypatch.setattr(run_view, "_MOST_READ", 4)
    ids = eval_ids(10)
    for eval_id in ids[:2]:
        await add_dead_letters(redis, [eval_id], run="q3")
    await add_dead_letters(redis, ids[2:7], run="another")
    await add_dead_letters(redis, ids[7:8], "forbidden", run="q3")
    await add_dead_letters(redis, ids[8:9], "forbidden", run="small")
    text = text_of((await operator.get_page("/page/run?run=q3")).body)
    assert [eval_id in text for eval_id in (ids[0], ids[7])] == [False, True]
    assert "There may be more: only the newest dead letters of each cause were searched." in text
    assert "There may be more" not in text_of((await operator.get_page("/page/run?run=small")).body)


async def test_a_viewer_sees_a_run_without_buttons(viewer: PageUser, redis: Redis) -> None:
    await add_dead_letters(redis, eval_ids(1), run="q3")
    body = (await viewer.get_page("/page/run?run=q3")).body.decode()
    assert "1 needs attention" in body
    assert not any(action in body for action in ("/page/redrive", "/page/drop", "/page/cancel"))


async def test_the_view_reports_that_nothing_needs_attention_when_there_are_no_errors(
    operator: PageUser, redis: Redis
) -> None:
    ledger = Ledger(redis)
    await ledger.accept(eval_ids(1), EnqueueOptions(Queue.LIVE, "default", Trigger("run", run="q3")))
    (entry,) = await ledger.lease(eval_ids(1), token="a-token")
    await ledger.complete(entry, Outcome.ARCHIVED)
    text = text_of((await operator.get_page("/page/run?run=q3")).body)
    assert "1 of 1 evaluation finished. Nothing needs attention." in text
    assert "What failed Nothing." in text


async def test_the_report_of_a_run_is_sent_as_csv(viewer: PageUser, redis: Redis, tmp_path: Path) -> None:
    ids = eval_ids(3)
    bucket = await begin_run(redis, tmp_path, ids, 0)
    await archive(bucket, ids[0], Outcome.NOT_FOUND)
    await add_dead_letters(redis, ids[1:2], run="q4")
    answer = await viewer.get_page("/page/report?run=q4")
    assert answer.headers["Content-Disposition"] == 'attachment; filename="q4.csv"'
    rows = list(csv.DictReader(io.StringIO(answer.body.decode())))
    assert [(row["eval_id"], row["outcome"], row["cause"]) for row in rows] == [
        (ids[0], "not_found", ""),
        (ids[1], "failed", "service_failed"),
        (ids[2], "missing", ""),
    ]


async def test_the_report_of_a_run_that_was_not_fed_from_its_list_is_sent(
    viewer: PageUser, redis: Redis, tmp_path: Path
) -> None:
    ids = eval_ids(2)
    bucket, ledger = LocalBucket(tmp_path / "archive"), Ledger(redis)
    await store_run(bucket, ids, "q5")
    await ledger.accept(ids, EnqueueOptions(Queue.LIVE, "default", Trigger("enqueue", run="q5")))
    await archive(bucket, ids[0], Outcome.NOT_FOUND)
    assert "none, so there is no report" not in text_of((await viewer.get_page("/page/run?run=q5")).body)
    answer = await viewer.get_page("/page/report?run=q5")
    rows = list(csv.DictReader(io.StringIO(answer.body.decode())))
    assert [(row["eval_id"], row["outcome"]) for row in rows] == [(ids[0], "not_found"), (ids[1], "missing")]


async def test_a_report_is_refused_while_another_is_generated(redis: Redis, tmp_path: Path) -> None:
    bucket = await begin_run(redis, tmp_path, eval_ids(1), 1)
    anything: Any = None
    view = RunView(anything, anything, Ledger(redis), bucket, "sandbox", asyncio.Semaphore(0))
    with pytest.raises(HTTPError, match="another report is being generated") as refused:
        await view.report(make_mocked_request("GET", "/page/report?run=q4"), anything)
    assert (refused.value.status, dict(refused.value.headers)) == (503, {"Retry-After": "30"})


@pytest.mark.parametrize("path", ["/page/run", "/page/report"])
@pytest.mark.parametrize("name", ["unknown", "", "..%2F..%2Fx", "%3Cimg%3E"])
async def test_an_unknown_run_is_answered_with_404(operator: PageUser, path: str, name: str) -> None:
    answer = await operator.get_page(f"{path}?run={name}")
    assert answer.status == 404
    assert b"<img" not in answer.body


async def test_a_damaged_run_list_is_reported_and_the_rest_is_shown(
    operator: PageUser, redis: Redis, tmp_path: Path
) -> None:
    await begin_run(redis, tmp_path, eval_ids(2), 2)
    (tmp_path / "archive/runs/sandbox/q4/run.json").write_text("{}")
    text = text_of((await operator.get_page("/page/run?run=q4")).body)
    assert "the list of run q4 is damaged" in text
    assert "0 of 2 evaluations finished" in text


async def test_html_in_the_name_of_a_run_is_escaped(operator: PageUser, redis: Redis) -> None:
    await add_dead_letters(redis, eval_ids(1), run=HTML)
    body = (await operator.get_page("/page/run?run=%3Cimg+src%3Dx+onerror%3Dalert%281%29%3E%22%27%26")).body.decode()
    assert "&lt;img" in body
    assert "<img" not in body
