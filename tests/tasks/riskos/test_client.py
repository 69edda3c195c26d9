import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace

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
from tasks.resilience.holds import hold_key
from tasks.resilience.rate_limiter import RateLimiter
from tasks.resilience.retry import RetryPolicy
from tasks.riskos.client import RiskOSClient, fetch
from tasks.riskos.download import DownloadOptions
from tasks.riskos.response import Bundle, NoBundle
from tests.riskos import Clock, Heard, Reply, Server, Then, http, json, listening, saying, zipped
from tests.zips import zip_of

EVALUATION = Evaluation("0b54a4d4-6e5b-4f3c-9d2a-7c1f0e8b9a10", "sandbox")
ZIP = zip_of({"user_uploaded/front.jpg": b"front"})
HERE = zipped(ZIP)
BUSY = json(503, b"{}")
TOO_FAST = json(429, b"{}", Retry_After="2")
REFUSED = json(401, b"{}")
FORBIDDEN = json(403, b"{}")
LONG_AGO, FAR_AWAY = 1.0, 4_000_000_000.0


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
class Desk:
    """Where RiskOS is asked from."""

    line: RiskOSClient
    clock: Clock

    async def ask(self, queue: Queue = Queue.LIVE) -> object:
        return await fetch(self.line, EVALUATION, job(queue))


@asynccontextmanager
async def desk_at(server: Server, redis: "Redis", policy: RetryPolicy, terms: DownloadOptions) -> AsyncIterator[Desk]:
    clock = Clock(redis)
    async with aiohttp.ClientSession() as session:
        yield Desk(clock.line_to(server.url, session, terms, policy), clock)


Open = Callable[..., AbstractAsyncContextManager[tuple[Desk, Server]]]


@pytest.fixture
def told(redis: "Redis") -> Open:
    """Return a desk and a server that gives these replies, one after the other."""

    @asynccontextmanager
    async def opened(
        *replies: Reply | bytes, attempts: int = 1, seconds: float = 60, most: int = 1 << 20
    ) -> AsyncIterator[tuple[Desk, Server]]:
        policy = RetryPolicy(quick_attempts=attempts, quick_seconds=seconds, quick_pause=0.0)
        async with (
            saying(*replies) as server,
            desk_at(server, redis, policy, DownloadOptions(max_bundle_bytes=most)) as desk,
        ):
            yield desk, server

    return opened


# Quick retries


@pytest.mark.parametrize("queue", Queue)
async def test_documents_that_are_there_are_asked_for_once(told: Open, queue: Queue) -> None:
    async with told(HERE, attempts=3) as (desk, server):
        answer = await desk.ask(queue)
    assert isinstance(answer, Bundle)
    assert answer.data == ZIP
    assert len(server.heard) == 1


@pytest.mark.parametrize(
    "reply",
    [
        BUSY,
        json(408, b"{}"),
        Reply(HERE[:-1], Then.CLOSE),
        Reply(b"", Then.RESET),
        http(200, b"<html>", headers={"Content-Type": "text/html"}),
        http(302, headers={"Location": "/"}),
        http(404),
        json(404, b'{"message": "no Route matched with those values"}'),
        zipped(ZIP, "attachment; filename=ffffffff-6e5b-4f3c-9d2a-7c1f0e8b9a10.zip"),
    ],
)
async def test_a_bundle_that_did_not_arrive_is_asked_for_again(told: Open, reply: Reply | bytes) -> None:
    async with told(reply, reply, HERE, attempts=3) as (desk, server):
        assert isinstance(await desk.ask(), Bundle)
    assert len(server.heard) == 3


async def test_quick_retries_end_and_the_last_error_tells_why(told: Open) -> None:
    page = http(200, b"<html>", headers={"Content-Type": "text/html"})
    async with told(BUSY, Reply(HERE[:-1], Then.CLOSE), page, HERE, attempts=3) as (desk, server):
        with pytest.raises(UnexpectedAnswer):
            await desk.ask()
    assert len(server.heard) == 3


async def test_quick_retries_end_when_their_time_is_up(told: Open) -> None:
    async with told(BUSY, HERE, attempts=100, seconds=0) as (desk, server):
        with pytest.raises(ServiceFailed):
            await desk.ask()
    assert len(server.heard) == 1


@pytest.mark.parametrize(
    ("reply", "outcome"),
    [
        (json(400, b'{"message": "No Documents Found"}'), Outcome.NO_DOCUMENTS),
        (json(400, b'{"message": "Something else"}'), Outcome.REJECTED),
        (json(404, b'{"message": "Evaluation not found"}'), Outcome.NOT_FOUND),
    ],
)
async def test_what_riskos_is_sure_of_is_asked_exactly_once(told: Open, reply: bytes, outcome: Outcome) -> None:
    async with told(reply, HERE, attempts=3) as (desk, server):
        answer = await desk.ask()
    assert isinstance(answer, NoBundle)
    assert answer.outcome is outcome
    assert len(server.heard) == 1


async def test_a_bundle_that_is_too_large_does_not_shrink_by_asking_again(told: Open) -> None:
    async with told(HERE, attempts=3, most=10) as (desk, server):
        with pytest.raises(BundleTooLarge):
            await desk.ask()
    assert len(server.heard) == 1


# 429


@pytest.mark.parametrize("queue", Queue)
async def test_a_429_is_waited_out_and_costs_no_attempt(told: Open, queue: Queue) -> None:
    async with told(TOO_FAST, TOO_FAST, HERE, attempts=1) as (desk, server):
        assert isinstance(await desk.ask(queue), Bundle)
    assert len(server.heard) == 3
    assert desk.clock.waits == pytest.approx([2, 2], abs=1)
    assert await desk.line.holds.list_all() == []


async def test_a_429_between_failures_costs_none_of_the_quick_retries(told: Open) -> None:
    async with told(TOO_FAST, BUSY, TOO_FAST, TOO_FAST, HERE, attempts=2) as (desk, server):
        assert isinstance(await desk.ask(), Bundle)
    assert len(server.heard) == 5


async def test_a_429_makes_the_whole_account_wait(told: Open) -> None:
    async with told(json(429, b"{}", Retry_After="100"), HERE) as (desk, server):
        with pytest.raises(AccountHeld) as caught:
            await desk.ask()
        with pytest.raises(AccountHeld):
            await desk.ask(Queue.BACKFILL)
        hold = await desk.line.holds.get("default")
    assert len(server.heard) == 1
    assert caught.value.wait == pytest.approx(100, abs=10)
    assert hold
    assert (hold.reason, hold.needs_probe) == ("429", False)


async def test_who_is_told_to_slow_down_again_and_again_comes_back_later(told: Open) -> None:
    async with told(TOO_FAST, attempts=3) as (desk, server):
        with pytest.raises(RateLimited) as caught:
            await desk.ask()
    assert 1 < len(server.heard) <= 10
    assert caught.value.wait == pytest.approx(2, abs=1)


async def test_a_429_that_asks_for_no_wait_does_not_become_a_flood(told: Open) -> None:
    async with told(json(429, b"{}", Retry_After="0"), HERE) as (desk, _):
        assert isinstance(await desk.ask(), Bundle)
    assert desk.clock.waits == pytest.approx([1], abs=0.5)


async def test_a_429_is_waited_out_in_real_time(redis: "Redis") -> None:
    async with (
        saying(json(429, b"{}", Retry_After="1"), HERE) as server,
        aiohttp.ClientSession() as session,
    ):
        clock = Clock(redis)
        line = replace(
            clock.line_to(server.url, session, DownloadOptions(), RetryPolicy()), rate_limiter=RateLimiter(redis)
        )
        for _ in range(5):  # by a hair too early is parked for a moment, which the ledger would do
            try:
                answer = await fetch(line, EVALUATION, job())
            except BlockedError as error:
                await asyncio.sleep(error.wait)
            else:
                break
    assert isinstance(answer, Bundle)
    assert len(server.heard) == 2


# 401


async def test_a_refused_key_puts_the_account_on_hold_and_nobody_asks_any_more(told: Open) -> None:
    async with told(REFUSED, HERE, attempts=3) as (desk, server):
        with pytest.raises(AccountRefused) as caught:
            await desk.ask()
        for queue in Queue:
            with pytest.raises(AccountHeld, match="401"):
                await desk.ask(queue)
        hold = await desk.line.holds.get("default")
    assert len(server.heard) == 1
    assert desk.clock.waits == []
    assert (caught.value.status, caught.value.wait) == (401, pytest.approx(30, abs=5))
    assert hold
    assert (hold.reason, hold.needs_probe) == ("401", True)


async def test_the_hold_is_known_to_every_process(told: Open, redis: "Redis") -> None:
    async with told(REFUSED, HERE) as (desk, server):
        with pytest.raises(AccountRefused):
            await desk.ask()
        another = Clock(redis).line_to(server.url, desk.line.http, desk.line.options, desk.line.retry_policy)
        with pytest.raises(AccountHeld):
            await fetch(another, EVALUATION, job())
    assert len(server.heard) == 1


@pytest.mark.parametrize("queue", Queue)
@pytest.mark.parametrize(
    "reply", [HERE, json(404, b'{"message": "Unknown"}'), json(400, b'{"message": "No Documents Found"}')]
)
async def test_a_probe_that_is_answered_lifts_the_hold(told: Open, queue: Queue, reply: bytes) -> None:
    async with told(REFUSED, reply, HERE) as (desk, server):
        with pytest.raises(AccountRefused):
            await desk.ask(queue)
        await desk.clock.passes()
        assert isinstance(await desk.ask(queue), Bundle | NoBundle)
        assert await desk.line.holds.get("default") is None
        assert isinstance(await desk.ask(queue), Bundle)
    assert len(server.heard) == 3


@pytest.mark.parametrize("queue", Queue)
async def test_a_probe_that_is_refused_doubles_the_pause_up_to_a_quarter_of_an_hour(told: Open, queue: Queue) -> None:
    pauses = []
    async with told(REFUSED) as (desk, server):
        for _ in range(7):
            with pytest.raises(AccountRefused) as caught:
                await desk.ask(queue)
            pauses.append(caught.value.wait)
            await desk.clock.passes()
    assert len(server.heard) == 7
    assert pauses == pytest.approx([30, 60, 120, 240, 480, 900, 900], abs=5)


async def test_of_many_who_wait_only_one_probes(told: Open) -> None:
    async with told(REFUSED, attempts=3) as (desk, server):
        with pytest.raises(AccountRefused):
            await desk.ask()
        await desk.clock.passes()
        refused = await asyncio.gather(*[desk.ask() for _ in range(10)], return_exceptions=True)
    assert len(server.heard) == 2
    assert sorted(type(error).__name__ for error in refused) == ["AccountHeld"] * 9 + ["AccountRefused"]


async def test_requests_that_were_under_way_do_not_make_the_hold_longer(redis: "Redis") -> None:
    together = asyncio.Barrier(5)

    async def refuse(_: Heard) -> Reply:
        await together.wait()
        return Reply(REFUSED)

    async with (
        listening(refuse) as server,
        desk_at(server, redis, RetryPolicy(quick_attempts=1), DownloadOptions()) as desk,
    ):
        refused = await asyncio.gather(*[desk.ask() for _ in range(5)], return_exceptions=True)
        hold = await redis.hgetall(hold_key("default"))
    assert [type(error) for error in refused] == [AccountRefused] * 5
    assert [error.wait for error in refused] == pytest.approx([30] * 5, abs=5)
    assert hold["pause"] == "60000"


@pytest.mark.parametrize(
    "reply", [BUSY, Reply(HERE[:-1], Then.RESET), TOO_FAST, http(200, b"<html>", headers={"Content-Type": "text/html"})]
)
async def test_a_probe_that_says_nothing_of_the_key_lifts_nothing(told: Open, reply: Reply | bytes) -> None:
    async with told(REFUSED, reply, HERE, attempts=3) as (desk, server):
        with pytest.raises(AccountRefused):
            await desk.ask()
        await desk.clock.passes()
        with pytest.raises((AccountHeld, ServiceFailed, ConnectionFailed, UnexpectedAnswer)):
            await desk.ask()
        hold = await desk.line.holds.get("default")
    assert len(server.heard) == 2
    assert hold
    assert (hold.reason, hold.needs_probe) == ("401", True)
    assert 0 < hold.remaining <= 60


# 403


async def charge_of(desk: Desk, forbidden_since: float | None = None) -> Charge:
    """Ask for the evaluation; return what its 403 costs it."""
    with pytest.raises(Forbidden) as caught:
        await fetch(desk.line, EVALUATION, job(forbidden_since=forbidden_since))
    return caught.value.charge


async def answer_before(desk: Desk) -> str:
    """Have RiskOS answer another evaluation; return its ID."""
    control = replace(EVALUATION, eval_id="ffffffff-6e5b-4f3c-9d2a-7c1f0e8b9a10")
    await fetch(desk.line, control, replace(job(), eval_id=control.eval_id))
    return control.eval_id


async def forbid_many(desk: Desk, count: int = 20) -> None:
    """Record that RiskOS answered other evaluations 403."""
    for number in range(count):
        await desk.line.permissions.record_forbidden(f"{number:08x}-6e5b-4f3c-9d2a-7c1f0e8b9a10", None)


async def test_the_first_403_costs_nothing_and_holds_nothing(told: Open) -> None:
    async with told(FORBIDDEN, attempts=3) as (desk, server):
        assert await charge_of(desk) is Charge.NOTHING
        assert await desk.line.holds.get("default") is None
    assert len(server.heard) == 1


async def test_a_second_403_is_final_if_another_evaluation_was_answered_since(told: Open) -> None:
    async with told(HERE, FORBIDDEN, attempts=3) as (desk, server):
        await answer_before(desk)
        assert await charge_of(desk, LONG_AGO) is Charge.ALL
    assert len(server.heard) == 2


@pytest.mark.parametrize(
    ("control", "charge"),
    [
        (HERE, Charge.ALL),
        (json(404, b"{}"), Charge.ALL),
        (json(400, b'{"message": "No Documents Found"}'), Charge.ALL),
        (FORBIDDEN, Charge.NOTHING),
        (BUSY, Charge.NOTHING),
        (Reply(b"", Then.RESET), Charge.NOTHING),
        (http(302, headers={"Location": "/"}), Charge.NOTHING),
    ],
)
async def test_a_control_decides_if_none_was_answered_since(told: Open, control: Reply | bytes, charge: Charge) -> None:
    async with told(HERE, FORBIDDEN, control, attempts=3) as (desk, server):
        asked = await answer_before(desk)
        assert await charge_of(desk, FAR_AWAY) is charge
        assert await desk.line.holds.get("default") is None
    assert all(asked in heard.path for heard in server.heard[2:])


async def test_a_control_that_was_answered_serves_the_next_evaluation_too(told: Open) -> None:
    since = time.time()
    async with told(HERE, FORBIDDEN, HERE, FORBIDDEN) as (desk, server):
        await answer_before(desk)
        await charge_of(desk, FAR_AWAY)
        assert await charge_of(desk, since) is Charge.ALL
    assert len(server.heard) == 4


@pytest.mark.parametrize(("control", "error"), [(REFUSED, AccountRefused), (TOO_FAST, RateLimited)])
async def test_a_control_that_the_account_must_wait_for_holds_it(
    told: Open, control: bytes, error: type[BlockedError]
) -> None:
    async with told(HERE, FORBIDDEN, control) as (desk, _):
        await answer_before(desk)
        with pytest.raises(error):
            await fetch(desk.line, EVALUATION, job(forbidden_since=FAR_AWAY))
        assert await desk.line.holds.get("default")


async def test_a_second_403_costs_an_attempt_if_no_other_evaluation_was_ever_answered(told: Open) -> None:
    async with told(FORBIDDEN) as (desk, _):
        assert await charge_of(desk, LONG_AGO) is Charge.ATTEMPT


async def test_the_account_is_on_hold_after_twenty_403s_and_the_hold_names_evaluations(told: Open) -> None:
    async with told(FORBIDDEN) as (desk, _):
        await forbid_many(desk, 19)
        with pytest.raises(AccountRefused) as caught:
            await desk.ask()
        hold = await desk.line.holds.get("default")
    assert caught.value.wait == pytest.approx(30, abs=5)
    assert hold
    assert (hold.reason, hold.needs_probe) == ("403", True)
    assert "00000000-6e5b-4f3c-9d2a-7c1f0e8b9a10" in hold.note


async def test_a_probe_answered_403_goes_on_with_a_hold_for_403(told: Open) -> None:
    pauses = []
    async with told(FORBIDDEN) as (desk, _):
        await forbid_many(desk)
        for _ in range(3):
            with pytest.raises(AccountRefused) as caught:
                await desk.ask()
            pauses.append(caught.value.wait)
            await desk.clock.passes()
    assert pauses == pytest.approx([30, 60, 120], abs=5)


async def test_a_probe_answered_403_ends_another_hold(told: Open) -> None:
    async with told(REFUSED, FORBIDDEN, HERE) as (desk, _):
        with pytest.raises(AccountRefused):
            await desk.ask()
        await desk.clock.passes()
        assert await charge_of(desk) is Charge.NOTHING
        assert await desk.line.holds.get("default") is None
        assert isinstance(await desk.ask(), Bundle)


# The quota


async def test_an_account_whose_quota_is_spent_asks_for_nothing_more(told: Open) -> None:
    async with told(HERE) as (desk, server):
        account = replace(desk.line.account, allowance=Allowance(rate=10_000, daily_quota=2))
        line = replace(desk.line, account=account)
        for _ in range(2):
            await fetch(line, EVALUATION, job())
        with pytest.raises(AccountHeld, match="quota") as caught:
            await fetch(line, EVALUATION, job())
    assert len(server.heard) == 2
    assert 86_000 < caught.value.wait <= 86_400


async def test_quick_retries_wait_their_turn_and_count_for_the_quota(told: Open) -> None:
    async with told(BUSY, attempts=10) as (desk, server):
        account = replace(desk.line.account, allowance=Allowance(rate=10_000, daily_quota=4))
        with pytest.raises(AccountHeld, match="quota"):
            await fetch(replace(desk.line, account=account), EVALUATION, job())
    assert len(server.heard) == 4
