import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from types import SimpleNamespace

import aiohttp
import pytest
from redis.asyncio import Redis

from tasks.errors import (
    AccountHeld,
    AccountRefused,
    BlockedError,
    BundleTooLarge,
    Charge,
    ConnectionFailed,
    Forbidden,
    RateLimited,
    ServiceFailed,
    UnexpectedAnswer,
)
from tasks.model.account import Allowance
from tasks.model.evaluation import Evaluation
from tasks.model.job import Job, Queue, Trigger
from tasks.model.outcome import Outcome
from tasks.resilience.holds import OUTAGE_BACKOFF, Reason, hold_key
from tasks.resilience.rate_limiter import RateLimiter
from tasks.resilience.retry import RetryPolicy
from tasks.riskos import client as module
from tasks.riskos.client import RiskOSClient
from tasks.riskos.download import DownloadOptions
from tasks.riskos.response import Bundle, NoBundle
from tests.counting import MetricGrowth
from tests.riskos import (
    Clock,
    ReceivedRequest,
    Reply,
    Server,
    Then,
    bundle_reply,
    http,
    json_reply,
    serve_replies,
    serve_requests,
)
from tests.zips import zip_of

EVALUATION = Evaluation("0b54a4d4-6e5b-4f3c-9d2a-7c1f0e8b9a10", "sandbox")
ZIP = zip_of({"user_uploaded/front.jpg": b"front"})
BUNDLE = bundle_reply(ZIP)
BUSY = json_reply(503, b"{}")
TOO_FAST = json_reply(429, b"{}", Retry_After="2")
REFUSED = json_reply(401, b"{}")
FORBIDDEN = json_reply(403, b"{}")
LONG_AGO, FAR_FUTURE = 1.0, 4_000_000_000.0


def job(queue: Queue = Queue.LIVE, forbidden_since: float | None = None) -> Job:
    """Return the evaluation as a worker leases it."""
    return Job(
        EVALUATION.eval_id,
        "ours",
        queue,
        "default",
        *(False, 0, 0),
        Trigger("message"),
        forbidden_since=forbidden_since,
    )


@dataclass(frozen=True)
class Setup:
    """A RiskOS client and its clock."""

    client: RiskOSClient
    clock: Clock

    async def fetch(self, queue: Queue = Queue.LIVE) -> object:
        return await self.client.fetch(EVALUATION, job(queue))


@asynccontextmanager
async def setup_at(
    server: Server, redis: "Redis", policy: RetryPolicy, options: DownloadOptions
) -> AsyncIterator[Setup]:
    clock = Clock(redis)
    async with aiohttp.ClientSession() as session:
        yield Setup(clock.make_client(server.url, session, options, policy), clock)


OpenSetup = Callable[..., AbstractAsyncContextManager[tuple[Setup, Server]]]


@pytest.fixture
def open_setup(redis: "Redis") -> OpenSetup:
    """Return a function that opens a setup and a server with scripted replies."""

    @asynccontextmanager
    async def opened(
        *replies: Reply | bytes, attempts: int = 1, seconds: float = 60, max_bytes: int = 1 << 20
    ) -> AsyncIterator[tuple[Setup, Server]]:
        policy = RetryPolicy(quick_attempts=attempts, quick_seconds=seconds, quick_pause=0.0)
        async with (
            serve_replies(*replies) as server,
            setup_at(server, redis, policy, DownloadOptions(max_bundle_bytes=max_bytes)) as setup,
        ):
            yield setup, server

    return opened


# Probes by suspects


@pytest.mark.parametrize(
    ("control", "is_held"), [(BUNDLE, False), (json_reply(404, b"{}"), False), (BUSY, True), (REFUSED, True)]
)
async def test_another_evaluation_decides_the_hold_when_the_probe_of_a_suspect_fails(
    open_setup: OpenSetup, control: Reply | bytes, *, is_held: bool
) -> None:
    """Otherwise the hold would never end if only suspects are left."""
    async with open_setup(BUNDLE, BUSY, control, BUSY) as (setup, server):
        other_id = await request_another(setup)
        await setup.client.holds.place_until_probe("default", Reason.OUTAGE, "", OUTAGE_BACKOFF, probe=False)
        await setup.clock.let_time_pass()
        with pytest.raises(ServiceFailed) as failed:
            await setup.client.fetch(EVALUATION, replace(job(), suspect=True))
        hold = await setup.client.holds.get("default")
    assert (failed.value.is_probe, hold is not None) == (is_held, is_held)
    assert other_id in server.requests[2].path


async def test_no_other_evaluation_is_requested_when_the_failed_probe_is_not_a_suspect(open_setup: OpenSetup) -> None:
    async with open_setup(BUNDLE, BUSY) as (setup, server):
        await request_another(setup)
        await setup.client.holds.place_until_probe("default", Reason.OUTAGE, "", OUTAGE_BACKOFF, probe=False)
        await setup.clock.let_time_pass()
        with pytest.raises(ServiceFailed) as failed:
            await setup.fetch()
    assert failed.value.is_probe
    assert len(server.requests) == 2


# Quick retries


@pytest.mark.parametrize("queue", Queue)
async def test_fetch_sends_one_request_when_riskos_has_documents(open_setup: OpenSetup, queue: Queue) -> None:
    async with open_setup(BUNDLE, attempts=3) as (setup, server):
        answer = await setup.fetch(queue)
    assert isinstance(answer, Bundle)
    assert answer.data == ZIP
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "reply",
    [
        BUSY,
        json_reply(408, b"{}"),
        Reply(BUNDLE[:-1], Then.CLOSE),
        Reply(b"", Then.RESET),
    ],
)
async def test_fetch_repeats_the_request_when_the_bundle_did_not_arrive(
    open_setup: OpenSetup, reply: Reply | bytes
) -> None:
    async with open_setup(reply, reply, BUNDLE, attempts=3) as (setup, server):
        assert isinstance(await setup.fetch(), Bundle)
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    "reply",
    [
        http(200, b"<html>", headers={"Content-Type": "text/html"}),
        http(302, headers={"Location": "/"}),
        http(404),
        json_reply(404, b'{"message": "no Route matched with those values"}'),
        bundle_reply(ZIP, "attachment; filename=ffffffff-6e5b-4f3c-9d2a-7c1f0e8b9a10.zip"),
    ],
)
async def test_fetch_leaves_the_answer_of_a_gateway_to_a_later_attempt(open_setup: OpenSetup, reply: bytes) -> None:
    async with open_setup(reply, BUNDLE, attempts=3) as (setup, server):
        with pytest.raises(UnexpectedAnswer):
            await setup.fetch()
    assert len(server.requests) == 1


async def test_fetch_raises_the_error_of_the_last_quick_retry(open_setup: OpenSetup) -> None:
    page = http(200, b"<html>", headers={"Content-Type": "text/html"})
    async with open_setup(BUSY, Reply(BUNDLE[:-1], Then.CLOSE), page, BUNDLE, attempts=3) as (setup, server):
        with pytest.raises(UnexpectedAnswer):
            await setup.fetch()
    assert len(server.requests) == 3


async def test_fetch_ends_the_quick_retries_when_their_time_is_up(open_setup: OpenSetup) -> None:
    async with open_setup(BUSY, BUNDLE, attempts=100, seconds=0) as (setup, server):
        with pytest.raises(ServiceFailed):
            await setup.fetch()
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("reply", "outcome"),
    [
        (json_reply(400, b'{"message": "No Documents Found"}'), Outcome.NO_DOCUMENTS),
        (json_reply(400, b'{"message": "Something else"}'), Outcome.REJECTED),
        (json_reply(404, b'{"message": "Evaluation not found"}'), Outcome.NOT_FOUND),
    ],
)
async def test_fetch_sends_one_request_when_riskos_has_no_bundle(
    open_setup: OpenSetup, reply: bytes, outcome: Outcome
) -> None:
    async with open_setup(reply, BUNDLE, attempts=3) as (setup, server):
        answer = await setup.fetch()
    assert isinstance(answer, NoBundle)
    assert answer.outcome is outcome
    assert len(server.requests) == 1


async def test_fetch_sends_one_request_when_the_bundle_is_too_large(
    open_setup: OpenSetup, counted: MetricGrowth
) -> None:
    async with open_setup(BUNDLE, attempts=3, max_bytes=10) as (setup, server):
        with pytest.raises(BundleTooLarge):
            await setup.fetch()
    assert len(server.requests) == 1
    assert counted['docv_riskos_requests_total{status="2xx"}'] == 1


# 429


@pytest.mark.parametrize("queue", Queue)
async def test_fetch_waits_after_a_429_and_costs_no_attempt(open_setup: OpenSetup, queue: Queue) -> None:
    async with open_setup(TOO_FAST, TOO_FAST, BUNDLE, attempts=1) as (setup, server):
        assert isinstance(await setup.fetch(queue), Bundle)
    assert len(server.requests) == 3
    assert setup.clock.waits == pytest.approx([2, 2], abs=1)
    assert await setup.client.holds.list_all() == []


async def test_a_429_does_not_count_as_a_quick_retry(open_setup: OpenSetup) -> None:
    async with open_setup(TOO_FAST, BUSY, TOO_FAST, TOO_FAST, BUNDLE, attempts=2) as (setup, server):
        assert isinstance(await setup.fetch(), Bundle)
    assert len(server.requests) == 5


async def test_a_429_holds_the_whole_account(open_setup: OpenSetup) -> None:
    async with open_setup(json_reply(429, b"{}", Retry_After="100"), BUNDLE) as (setup, server):
        with pytest.raises(AccountHeld) as caught:
            await setup.fetch()
        with pytest.raises(AccountHeld):
            await setup.fetch(Queue.BACKFILL)
        hold = await setup.client.holds.get("default")
    assert len(server.requests) == 1
    assert caught.value.wait == pytest.approx(100, abs=10)
    assert hold
    assert (hold.reason, hold.needs_probe) == ("429", False)


async def test_fetch_raises_rate_limited_after_several_429s(open_setup: OpenSetup) -> None:
    async with open_setup(TOO_FAST, attempts=3) as (setup, server):
        with pytest.raises(RateLimited) as caught:
            await setup.fetch()
    assert 1 < len(server.requests) <= 10
    assert caught.value.wait == pytest.approx(2, abs=1)


async def test_fetch_waits_one_second_when_a_429_has_a_wait_of_zero(open_setup: OpenSetup) -> None:
    async with open_setup(json_reply(429, b"{}", Retry_After="0"), BUNDLE) as (setup, _):
        assert isinstance(await setup.fetch(), Bundle)
    assert setup.clock.waits == pytest.approx([1], abs=0.5)


async def test_fetch_waits_in_real_time_after_a_429(redis: "Redis") -> None:
    async with (
        serve_replies(json_reply(429, b"{}", Retry_After="1"), BUNDLE) as server,
        aiohttp.ClientSession() as session,
    ):
        clock = Clock(redis)
        client = replace(
            clock.make_client(server.url, session, DownloadOptions(), RetryPolicy()), rate_limiter=RateLimiter(redis)
        )
        for _ in range(5):  # the ledger would park a request that is slightly too early
            try:
                answer = await client.fetch(EVALUATION, job())
            except BlockedError as error:
                await asyncio.sleep(error.wait)
            else:
                break
    assert isinstance(answer, Bundle)
    assert len(server.requests) == 2


# 401


async def test_a_401_holds_the_account_and_no_more_requests_are_sent(open_setup: OpenSetup) -> None:
    async with open_setup(REFUSED, BUNDLE, attempts=3) as (setup, server):
        with pytest.raises(AccountRefused) as caught:
            await setup.fetch()
        for queue in Queue:
            with pytest.raises(AccountHeld, match="401"):
                await setup.fetch(queue)
        hold = await setup.client.holds.get("default")
    assert len(server.requests) == 1
    assert setup.clock.waits == []
    assert (caught.value.status, caught.value.wait) == (401, pytest.approx(30, abs=5))
    assert hold
    assert (hold.reason, hold.needs_probe) == ("401", True)


async def test_a_401_holds_the_account_in_every_process(open_setup: OpenSetup, redis: "Redis") -> None:
    async with open_setup(REFUSED, BUNDLE) as (setup, server):
        with pytest.raises(AccountRefused):
            await setup.fetch()
        another = Clock(redis).make_client(
            server.url, setup.client.http, setup.client.options, setup.client.retry_policy
        )
        with pytest.raises(AccountHeld):
            await another.fetch(EVALUATION, job())
    assert len(server.requests) == 1


@pytest.mark.parametrize("queue", Queue)
@pytest.mark.parametrize(
    "reply", [BUNDLE, json_reply(404, b'{"message": "Unknown"}'), json_reply(400, b'{"message": "No Documents Found"}')]
)
async def test_an_answered_probe_ends_the_hold(open_setup: OpenSetup, queue: Queue, reply: bytes) -> None:
    async with open_setup(REFUSED, reply, BUNDLE) as (setup, server):
        with pytest.raises(AccountRefused):
            await setup.fetch(queue)
        await setup.clock.let_time_pass()
        assert isinstance(await setup.fetch(queue), Bundle | NoBundle)
        assert await setup.client.holds.get("default") is None
        assert isinstance(await setup.fetch(queue), Bundle)
    assert len(server.requests) == 3


async def test_an_answered_probe_ends_the_hold_when_it_requested_the_record(open_setup: OpenSetup) -> None:
    async with open_setup(json_reply(200, b"{}")) as (setup, server):
        await setup.client.holds.place_until_probe("default", Reason.OUTAGE, "", OUTAGE_BACKOFF, probe=False)
        await setup.clock.let_time_pass()
        assert await setup.client.explain(EVALUATION, job()) == ()
        assert await setup.client.holds.get("default") is None
    assert len(server.requests) == 1


@pytest.mark.parametrize("queue", Queue)
async def test_a_refused_probe_doubles_the_pause_up_to_15_minutes(open_setup: OpenSetup, queue: Queue) -> None:
    pauses = []
    async with open_setup(REFUSED) as (setup, server):
        for _ in range(7):
            with pytest.raises(AccountRefused) as caught:
                await setup.fetch(queue)
            pauses.append(caught.value.wait)
            await setup.clock.let_time_pass()
    assert len(server.requests) == 7
    assert pauses == pytest.approx([30, 60, 120, 240, 480, 900, 900], abs=5)


async def test_one_of_many_waiting_callers_sends_the_probe(open_setup: OpenSetup) -> None:
    async with open_setup(REFUSED, attempts=3) as (setup, server):
        with pytest.raises(AccountRefused):
            await setup.fetch()
        await setup.clock.let_time_pass()
        refused = await asyncio.gather(*[setup.fetch() for _ in range(10)], return_exceptions=True)
    assert len(server.requests) == 2
    assert sorted(type(error).__name__ for error in refused) == ["AccountHeld"] * 9 + ["AccountRefused"]


async def test_requests_in_flight_do_not_prolong_the_hold(redis: "Redis") -> None:
    together = asyncio.Barrier(5)

    async def refuse(_: ReceivedRequest) -> Reply:
        await together.wait()
        return Reply(REFUSED)

    async with (
        serve_requests(refuse) as server,
        setup_at(server, redis, RetryPolicy(quick_attempts=1), DownloadOptions()) as setup,
    ):
        refused = await asyncio.gather(*[setup.fetch() for _ in range(5)], return_exceptions=True)
        hold = await redis.hgetall(hold_key("default"))
    assert [type(error) for error in refused] == [AccountRefused] * 5
    assert [error.wait for error in refused] == pytest.approx([30] * 5, abs=5)
    assert hold["pause"] == "60000"


@pytest.mark.parametrize(
    "reply",
    [BUSY, Reply(BUNDLE[:-1], Then.RESET), TOO_FAST, http(200, b"<html>", headers={"Content-Type": "text/html"})],
)
async def test_a_probe_does_not_end_the_hold_when_its_answer_does_not_concern_the_key(
    open_setup: OpenSetup, reply: Reply | bytes
) -> None:
    async with open_setup(REFUSED, reply, BUNDLE, attempts=3) as (setup, server):
        with pytest.raises(AccountRefused):
            await setup.fetch()
        await setup.clock.let_time_pass()
        with pytest.raises((AccountHeld, ServiceFailed, ConnectionFailed, UnexpectedAnswer)):
            await setup.fetch()
        hold = await setup.client.holds.get("default")
    assert len(server.requests) == 2
    assert hold
    assert (hold.reason, hold.needs_probe) == ("401", True)
    assert 0 < hold.remaining <= 60


# 403


async def charge_of(setup: Setup, forbidden_since: float | None = None) -> Charge:
    """Request the evaluation, and return the charge of its 403."""
    with pytest.raises(Forbidden) as caught:
        await setup.client.fetch(EVALUATION, job(forbidden_since=forbidden_since))
    return caught.value.charge


async def request_another(setup: Setup) -> str:
    """Request another evaluation, which RiskOS answers, and return its ID."""
    control = replace(EVALUATION, eval_id="ffffffff-6e5b-4f3c-9d2a-7c1f0e8b9a10")
    await setup.client.fetch(control, replace(job(), eval_id=control.eval_id))
    return control.eval_id


async def forbid_many(setup: Setup, count: int = 20) -> None:
    """Record 403s of other evaluations."""
    for number in range(count):
        await setup.client.permissions.record_forbidden(f"{number:08x}-6e5b-4f3c-9d2a-7c1f0e8b9a10", None)


async def test_the_first_403_costs_nothing_and_places_no_hold(open_setup: OpenSetup) -> None:
    async with open_setup(FORBIDDEN, attempts=3) as (setup, server):
        assert await charge_of(setup) is Charge.NOTHING
        assert await setup.client.holds.get("default") is None
    assert len(server.requests) == 1


async def test_a_second_403_is_final_when_another_evaluation_got_an_answer_since(open_setup: OpenSetup) -> None:
    async with open_setup(BUNDLE, FORBIDDEN, attempts=3) as (setup, server):
        await request_another(setup)
        assert await charge_of(setup, LONG_AGO) is Charge.ALL
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("control", "charge"),
    [
        (BUNDLE, Charge.ALL),
        (json_reply(404, b"{}"), Charge.ALL),
        (json_reply(400, b'{"message": "No Documents Found"}'), Charge.ALL),
        (FORBIDDEN, Charge.NOTHING),
        (BUSY, Charge.NOTHING),
        (Reply(b"", Then.RESET), Charge.NOTHING),
        (http(302, headers={"Location": "/"}), Charge.NOTHING),
    ],
)
async def test_a_control_decides_when_no_evaluation_got_an_answer_since(
    open_setup: OpenSetup, control: Reply | bytes, charge: Charge
) -> None:
    async with open_setup(BUNDLE, FORBIDDEN, control, attempts=3) as (setup, server):
        other_id = await request_another(setup)
        assert await charge_of(setup, FAR_FUTURE) is charge
        assert await setup.client.holds.get("default") is None
    assert all(other_id in request.path for request in server.requests[2:])


async def test_an_answered_control_decides_for_the_next_evaluation_too(open_setup: OpenSetup) -> None:
    since = time.time()
    async with open_setup(BUNDLE, FORBIDDEN, BUNDLE, FORBIDDEN) as (setup, server):
        await request_another(setup)
        await charge_of(setup, FAR_FUTURE)
        assert await charge_of(setup, since) is Charge.ALL
    assert len(server.requests) == 4


@pytest.mark.parametrize(("control", "error"), [(REFUSED, AccountRefused), (TOO_FAST, RateLimited)])
async def test_a_control_holds_the_account_when_riskos_refuses_or_limits_it(
    open_setup: OpenSetup, control: bytes, error: type[BlockedError]
) -> None:
    async with open_setup(BUNDLE, FORBIDDEN, control) as (setup, _):
        await request_another(setup)
        with pytest.raises(error):
            await setup.client.fetch(EVALUATION, job(forbidden_since=FAR_FUTURE))
        assert await setup.client.holds.get("default")


async def test_a_second_403_costs_an_attempt_when_no_other_evaluation_ever_got_an_answer(open_setup: OpenSetup) -> None:
    async with open_setup(FORBIDDEN) as (setup, _):
        assert await charge_of(setup, LONG_AGO) is Charge.ATTEMPT


async def test_the_account_is_on_hold_after_twenty_403s_and_the_hold_names_evaluations(open_setup: OpenSetup) -> None:
    async with open_setup(FORBIDDEN) as (setup, _):
        await forbid_many(setup, 19)
        with pytest.raises(AccountRefused) as caught:
            await setup.fetch()
        hold = await setup.client.holds.get("default")
    assert caught.value.wait == pytest.approx(30, abs=5)
    assert hold
    assert (hold.reason, hold.needs_probe) == ("403", True)
    assert "00000000-6e5b-4f3c-9d2a-7c1f0e8b9a10" in hold.note


async def test_a_probe_answered_403_prolongs_a_hold_for_403(open_setup: OpenSetup) -> None:
    pauses = []
    async with open_setup(FORBIDDEN) as (setup, _):
        await forbid_many(setup)
        for _ in range(3):
            with pytest.raises(AccountRefused) as caught:
                await setup.fetch()
            pauses.append(caught.value.wait)
            await setup.clock.let_time_pass()
    assert pauses == pytest.approx([30, 60, 120], abs=5)


async def test_a_probe_answered_403_ends_another_hold(open_setup: OpenSetup) -> None:
    async with open_setup(REFUSED, FORBIDDEN, BUNDLE) as (setup, _):
        with pytest.raises(AccountRefused):
            await setup.fetch()
        await setup.clock.let_time_pass()
        assert await charge_of(setup) is Charge.NOTHING
        assert await setup.client.holds.get("default") is None
        assert isinstance(await setup.fetch(), Bundle)


# The quota


@pytest.mark.parametrize(("status", "label"), [(200, "2xx"), (404, "4xx")])
async def test_explain_counts_its_request(
    open_setup: OpenSetup, counted: MetricGrowth, status: int, label: str
) -> None:
    async with open_setup(json_reply(status, b"{}")) as (setup, _):
        assert await setup.client.explain(EVALUATION, job()) == ()
    assert counted[f'docv_riskos_requests_total{{status="{label}"}}'] == 1


async def test_fetch_observes_the_wait_for_its_permit(
    open_setup: OpenSetup, counted: MetricGrowth, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = itertools.count(0.0, 2.5)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    async with open_setup(BUNDLE) as (setup, _):
        await setup.fetch()
    assert counted['docv_step_seconds_sum{step="rate_limit"}'] == pytest.approx(2.5)


SPENT = {"RateLimit_Remaining": "0", "RateLimit_Reset": "600"}


@pytest.mark.parametrize("status", [200, 403, 404])
async def test_the_headers_of_any_answer_hold_the_account_when_the_limit_is_spent(
    open_setup: OpenSetup, status: int
) -> None:
    async with open_setup(json_reply(status, b'{"message": "Unknown"}', **SPENT)) as (setup, server):
        with contextlib.suppress(Forbidden):
            await (setup.client.explain(EVALUATION, job()) if status == 200 else setup.fetch())
        hold = await setup.client.holds.get("default")
        assert hold
        assert (hold.reason, hold.remaining) == (Reason.QUOTA, pytest.approx(600, abs=30))
        with pytest.raises(AccountHeld):
            await setup.fetch()
    assert len(server.requests) == 1


async def test_no_request_is_sent_when_the_quota_is_spent(open_setup: OpenSetup) -> None:
    async with open_setup(BUNDLE) as (setup, server):
        account = replace(setup.client.account, allowance=Allowance(rate=10_000, daily_quota=2))
        client = replace(setup.client, account=account)
        for _ in range(2):
            await client.fetch(EVALUATION, job())
        with pytest.raises(AccountHeld, match="quota") as caught:
            await client.fetch(EVALUATION, job())
    assert len(server.requests) == 2
    assert 86_000 < caught.value.wait <= 86_400


async def test_quick_retries_count_towards_the_quota(open_setup: OpenSetup) -> None:
    async with open_setup(BUSY, attempts=10) as (setup, server):
        account = replace(setup.client.account, allowance=Allowance(rate=10_000, daily_quota=4))
        with pytest.raises(AccountHeld, match="quota"):
            await replace(setup.client, account=account).fetch(EVALUATION, job())
    assert len(server.requests) == 4
