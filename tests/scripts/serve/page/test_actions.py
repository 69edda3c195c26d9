"""Actions do what their buttons say, only for operators and only from forms of the page."""

from pathlib import Path
from urllib.parse import urlencode

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from structlog.testing import capture_logs

from scripts.serve.http.limits import HttpLimits
from scripts.serve.page.actions import ActionViews
from scripts.serve.page.signer import PageSigner
from tasks.errors import ServiceFailed
from tasks.ledger.dead_letters import DeadLetters
from tasks.ledger.ledger import Ledger
from tasks.model.job import EnqueueOptions, Queue, Trigger
from tasks.model.outcome import Outcome
from tasks.resilience.circuit_breaker import CircuitBreaker
from tasks.resilience.holds import ARCHIVE, OUTAGE_BACKOFF, Holds, Reason
from tasks.storage.local_bucket import LocalBucket
from tasks.storage.run_list import RunSource, read_run_list, store_run_list
from tests.archives import eval_ids
from tests.holds import failed
from tests.scripts.serve.conftest import OPERATOR, Client, basic, running_client, settings_for
from tests.scripts.serve.page.conftest import HTML, PageUser, add_dead_letters
from tests.scripts.serve.page.test_views import text_of

ACTIONS = (
    "/page/resume?scope=default",
    "/page/redrive?cause=service_failed",
    "/page/drop?cause=service_failed",
    "/page/cancel?run=q3",
)


async def test_resume_ends_one_hold_and_is_logged(operator: PageUser, redis: Redis) -> None:
    holds = Holds(redis)
    await holds.place_manual("default", "closing")
    await holds.place_until_probe(ARCHIVE, Reason.CANNOT_WRITE, "no", OUTAGE_BACKOFF, probe=False)
    with capture_logs() as logged:
        answer = await operator.press("/page/resume?scope=default")
    assert "Resumed." in answer.body.decode()
    assert [hold.scope for hold in await holds.list_all()] == [ARCHIVE]
    (line,) = (each for each in logged if each["event"] == "action.resumed")
    assert (line["actor"], line["role"], line["scope"], line["ended"]) == ("operator", "operator", "default", True)


async def test_resume_clears_earlier_failures(operator: PageUser, redis: Redis) -> None:
    holds = Holds(redis)
    breaker = CircuitBreaker(redis, "default", holds)
    for _ in range(10):
        await failed(breaker, redis, ServiceFailed(503))
    assert [hold.reason for hold in await holds.list_all()] == [Reason.OUTAGE]
    await operator.press("/page/resume?scope=default")
    assert not await failed(breaker, redis, ServiceFailed(503)), "one more failure is not an outage"
    assert await holds.list_all() == []


async def test_resume_reports_a_hold_that_has_already_ended(operator: PageUser, redis: Redis) -> None:
    assert "It is no longer on hold" in (await operator.get_page("/page/resume?scope=default")).body.decode()
    answer = await operator.post("/page/resume", {"scope": "default", "token": await _token(operator, redis)})
    assert "It was no longer on hold." in answer.body.decode()


@pytest.mark.parametrize("cause", ["service_failed", HTML])
async def test_redrive_covers_all_dead_letters_of_a_cause(operator: PageUser, redis: Redis, cause: str) -> None:
    ids = eval_ids(12)
    await add_dead_letters(redis, ids[:7], cause)
    await add_dead_letters(redis, ids[7:], "bundle_too_large")
    page = await operator.get_page("/page/dead-letters")
    answer = await operator.press(f"/page/redrive?{urlencode({'cause': cause})}")
    assert page.status == 200
    assert "7 redriven" in answer.body.decode()
    assert await Ledger(redis).dead_letters.count_causes() == {"bundle_too_large": 5}
    assert (await Ledger(redis).get_stats()).parked == 7


@pytest.mark.parametrize("verb", ["Drop", "Redrive"])
async def test_the_confirmation_shows_the_number_of_dead_letters_and_their_cause(
    operator: PageUser, redis: Redis, verb: str
) -> None:
    ids = eval_ids(3)
    await add_dead_letters(redis, ids)
    many = text_of((await operator.get_page(f"/page/{verb.lower()}?cause=service_failed")).body)
    assert f"{verb} 3 dead letters? Cause: RiskOS failed" in many
    one = text_of((await operator.get_page(f"/page/{verb.lower()}?eval_id={ids[1]}")).body)
    assert f"{verb} 1 dead letter? {ids[1]} Cause: RiskOS failed" in one


async def test_the_confirmation_of_a_drop_says_that_objects_in_the_archive_stay(
    operator: PageUser, redis: Redis
) -> None:
    await add_dead_letters(redis, eval_ids(2))
    text = text_of((await operator.get_page("/page/drop?cause=service_failed")).body)
    assert "They are not tried again. Their objects in the archive stay." in text


async def test_drop_removes_one_dead_letter_and_leaves_the_others(operator: PageUser, redis: Redis) -> None:
    ids = eval_ids(3)
    await add_dead_letters(redis, ids)
    with capture_logs() as logged:
        answer = await operator.press(f"/page/drop?eval_id={ids[1]}")
    assert "1 dropped." in answer.body.decode()
    assert {letter.eval_id async for letter in Ledger(redis).dead_letters.iterate()} == {ids[0], ids[2]}
    (line,) = (each for each in logged if each["event"] == "action.dropped")
    assert (line["actor"], line["eval_id"], line["count"]) == ("operator", ids[1], 1)


async def test_an_action_stops_when_its_time_is_up(redis: Redis, tmp_path: Path) -> None:
    await add_dead_letters(redis, eval_ids(1_050))
    unused: object = None
    actions = ActionViews(unused, redis, PageSigner(redis), unused, HttpLimits(), unused, "", seconds=0)  # type: ignore[arg-type]
    logged: dict[str, object] = {}
    assert await actions._act_on_all("redriven", "service_failed", logged) == (1_000, 50)
    assert logged == {"count": 1_000, "left": 50}
    patient = ActionViews(unused, redis, PageSigner(redis), unused, HttpLimits(), unused, "")  # type: ignore[arg-type]
    assert await patient._act_on_all("dropped", "service_failed", {}) == (50, 0)
    assert (await Ledger(redis).get_stats()).dead_letters == 0


async def test_an_action_that_fails_midway_is_logged_with_its_progress(
    operator: PageUser, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    await add_dead_letters(redis, eval_ids(1_050))
    drop, calls = DeadLetters.drop, 0

    async def fail_the_second_time(dead_letters: DeadLetters, ids: list[str]) -> list[str]:
        nonlocal calls
        calls += 1
        if calls > 1:
            raise RedisConnectionError
        return await drop(dead_letters, ids)

    monkeypatch.setattr(DeadLetters, "drop", fail_the_second_time)
    with capture_logs() as logged:
        assert (await operator.press("/page/drop?cause=service_failed")).status == 503
    begun, failed = (line for line in logged if line["event"].startswith("access."))
    facts = {"actor": "operator", "role": "operator", "action": "action.dropped", "cause": "service_failed"}
    assert begun.items() >= {**facts, "event": "access.begun"}.items()
    assert failed.items() >= {**facts, "event": "access.failed", "count": 1_000, "error": "ConnectionError"}.items()
    answered = next(line for line in logged if line["event"] == "request.answered" and line["status"] == 503)
    assert begun["request_id"] == failed["request_id"] == answered["request_id"]


@pytest.mark.parametrize("address", ["/page/drop?cause=service_failed", "/page/resume?scope=default"])
async def test_a_refused_action_is_logged(viewer: PageUser, address: str) -> None:
    with capture_logs() as logged:
        assert (await viewer.get_page(address)).status == 403
    (line,) = (each for each in logged if each["event"] == "access.refused")
    assert (line["actor"], line["role"], line["status"]) == ("viewer", "viewer", 403)
    assert line["route"] == address.partition("?")[0]


async def test_the_page_reports_how_many_are_left_after_an_action(operator: PageUser) -> None:
    page = (await operator.get_page("/page/dead-letters?did=redriven&count=1000&left=1500")).body.decode()
    assert "1,000 redriven" in page
    assert "1,500 are left: repeat the action." in page


async def test_an_address_can_only_choose_among_fixed_messages(operator: PageUser) -> None:
    page = (await operator.get_page("/?did=<b>send-money</b>&count=<b>1</b>")).body.decode()
    assert "send-money" not in page
    assert 'class="notice" role="status"' not in page


async def test_an_action_redirects_so_that_a_reload_does_not_repeat_it(
    operator: PageUser, client: Client, redis: Redis
) -> None:
    await add_dead_letters(redis, eval_ids(1))
    data = urlencode({"cause": "service_failed", "token": await operator.token()})
    request = {"data": data, "headers": {"Authorization": basic(OPERATOR)}, "allow_redirects": False}
    async with client._http.post(client.url + "/page/redrive", **request) as answer:  # type: ignore[arg-type]
        assert answer.status == 303
        assert answer.headers["Location"] == "/page/dead-letters?did=redriven&count=1&left=0"


@pytest.mark.parametrize("address", ACTIONS)
async def test_a_viewer_cannot_run_an_action(viewer: PageUser, operator: PageUser, redis: Redis, address: str) -> None:
    await add_dead_letters(redis, eval_ids(1))
    await Holds(redis).place_manual("default", "closing")
    assert (await viewer.get_page(address)).status == 403
    path, _, query = address.partition("?")
    fields = dict([query.split("=")]) | {"token": await operator.token()}
    answer = await viewer.post(path, fields)
    assert (answer.status, "only operators may do this" in answer.body.decode()) == (403, True)
    assert (await Ledger(redis).get_stats()).dead_letters == 1
    assert await Holds(redis).get("default")


@pytest.mark.parametrize("address", ACTIONS)
async def test_no_action_runs_when_the_page_is_read_only(
    redis: Redis, redis_url: str, tmp_path: Path, address: str
) -> None:
    await add_dead_letters(redis, eval_ids(1))
    await Holds(redis).place_manual("default", "closing")
    async with running_client(settings_for(redis_url, tmp_path), read_only=True) as client:
        operator = PageUser(client, OPERATOR)
        path, _, query = address.partition("?")
        for answer in (await operator.get_page(address), await operator.post(path, dict([query.split("=")]))):
            assert (answer.status, "--read-only" in answer.body.decode()) == (403, True)
    assert (await Ledger(redis).get_stats()).dead_letters == 1
    assert await Holds(redis).get("default")


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"", 403), (b"cause=service_failed", 403), (b"\xff", 400), (b"&".join([b"a=b"] * 9), 400)],
)
async def test_a_form_without_a_token_or_with_an_invalid_body_is_refused(
    operator: PageUser, client: Client, body: bytes, status: int
) -> None:
    login = {"Authorization": operator._login}
    assert (await client.send("POST", "/page/redrive", body, **login)).status == status


async def test_a_form_without_a_target_is_refused(operator: PageUser, redis: Redis) -> None:
    await add_dead_letters(redis, eval_ids(1))
    token = await operator.token()
    assert (await operator.post("/page/drop", {"token": token})).status == 400
    assert (await operator.post("/page/drop", {"token": token, "eval_id": "<b>"})).status == 400
    assert (await operator.get_page("/page/drop")).status == 400
    assert (await Ledger(redis).get_stats()).dead_letters == 1


async def begin_run(redis: Redis, folder: Path, ids: list[str], *, fed: int) -> LocalBucket:
    """Begin a run with a list, and feed the first IDs of the list."""
    bucket, ledger = LocalBucket(folder / "archive"), Ledger(redis)
    source = RunSource(name="ids.txt", fingerprint="a" * 64, ids=len(ids), repeated=0, bad=0)
    kept = await store_run_list(
        bucket, ids, run="q4", environment="sandbox", account="default", refresh=False, source=source
    )
    await ledger.runs.begin("q4", total=len(ids), fingerprint=kept.fingerprint)
    options = EnqueueOptions(Queue.BACKFILL, "default", Trigger("backfill", run="q4"))
    await ledger.runs.feed("q4", ids[:fed], options, position=0, backlog=100)
    return bucket


async def test_cancel_ends_a_run(operator: PageUser, redis: Redis, tmp_path: Path) -> None:
    ids = eval_ids(10)
    bucket = await begin_run(redis, tmp_path, ids, fed=4)
    await Ledger(redis).lease(ids[:1], token="a-token")
    assert "/page/cancel?run=q4" in (await operator.get_page("/")).body.decode()
    assert "9 evaluations of run q4" in (await operator.get_page("/page/cancel?run=q4")).body.decode()
    with capture_logs() as logged:
        answer = await operator.press("/page/cancel?run=q4")
    assert "9 cancelled. 1 in flight finish" in answer.body.decode()
    counters = await Ledger(redis).runs.get_counters("q4")
    assert (counters.outcomes[Outcome.CANCELLED], counters.pending) == (9, 1)
    (line,) = (each for each in logged if each["event"] == "action.cancelled")
    assert (line["actor"], line["run"], line["cancelled"], line["in_flight"]) == ("operator", "q4", 9, 1)
    kept = await read_run_list(bucket, "sandbox", "q4")
    assert kept is not None
    assert (kept.cancelled_by, kept.position) == ("operator", 4)
    assert "Nothing left to cancel" in (await operator.get_page("/page/cancel?run=q4")).body.decode()


async def test_cancel_ends_one_evaluation(operator: PageUser, redis: Redis) -> None:
    ids = eval_ids(3)
    await Ledger(redis).accept(ids, EnqueueOptions(Queue.LIVE, "default", Trigger("enqueue")))
    assert f"/page/cancel?eval_id={ids[0]}" in (await operator.get_page(f"/page/evaluation?id={ids[0]}")).body.decode()
    assert "1 cancelled." in (await operator.press(f"/page/cancel?eval_id={ids[0]}")).body.decode()
    assert (await Ledger(redis).get_stats()).queued[Queue.LIVE] == 2
    assert "/page/cancel" not in (await operator.get_page(f"/page/evaluation?id={ids[0]}")).body.decode()


async def test_a_run_is_cancelled_and_a_problem_reported_when_its_list_cannot_record_it(
    operator: PageUser, redis: Redis, tmp_path: Path
) -> None:
    await begin_run(redis, tmp_path, eval_ids(10), fed=4)
    (tmp_path / "archive/runs/sandbox/q4/run.json").write_text("{}")
    answer = await operator.press("/page/cancel?run=q4")
    assert answer.status == 502
    assert "docv-archive cancel --run q4" in answer.body.decode()
    assert (await Ledger(redis).runs.get_counters("q4")).pending == 0


async def test_cancel_refuses_an_unknown_run(operator: PageUser, redis: Redis) -> None:
    assert "Nothing left to cancel" in (await operator.get_page("/page/cancel?run=unknown")).body.decode()
    answer = await operator.post("/page/cancel", {"run": "unknown", "token": await _token(operator, redis)})
    assert answer.status == 404


async def _token(operator: PageUser, redis: Redis) -> str:
    await add_dead_letters(redis, eval_ids(1))
    return await operator.token()
