"""RiskOS is asked once, about an evaluation that does not exist; the answer says what of the key."""

import email.utils
import time
from typing import Any

import pytest
from redis.asyncio import Redis

from scripts.doctor.finding import State
from scripts.doctor.riskos import examine, judge_answer, judge_certificate, judge_clock
from scripts.simulator.options import RateHeaderStyle, SimulatorOptions
from scripts.simulator.server import start_simulator
from tasks.model.account import DEFAULT_ACCOUNT
from tasks.resilience.holds import Holds
from tasks.storage.manifest import archiver
from tests.commands import KEY
from tests.riskos import json, saying
from worker.config.accounts_file import AccountSettings
from worker.config.settings import Settings


@pytest.mark.parametrize(
    ("status", "headers", "body", "state", "said"),
    [
        (404, {}, b'{"message": "Evaluation not found"}', State.FINE, "accepted"),
        (400, {}, b'{"error": "unknown evaluation"}', State.FINE, "accepted"),
        (400, {}, b'["No Documents Found"]', State.FINE, "accepted"),
        (404, {}, b"", State.WRONG, "not as RiskOS"),
        (404, {}, b"{}", State.WRONG, "not as RiskOS"),
        (404, {}, b'{"message": "no Route matched with those values"}', State.WRONG, "not as RiskOS"),
        (405, {}, b'{"message": "Evaluation not found"}', State.WRONG, "not as RiskOS"),
        (404, {}, b"<html>", State.WRONG, "not as RiskOS"),
        (200, {}, b"{}", State.WRONG, "not as RiskOS"),
        (200, {}, b"PK\x03\x04", State.WARNING, "does not exist"),
        (302, {}, b"", State.WRONG, "not as RiskOS"),
        (401, {}, b"{}", State.WRONG, "not accepted"),
        (403, {}, b"{}", State.WRONG, "may not"),
        (429, {"X-RateLimit-Limit": "0"}, b"{}", State.WRONG, "0 requests"),
        (429, {}, b'{"message": "Not activated"}', State.WRONG, "0 requests"),
        (429, {}, b"{}", State.WARNING, "spent"),
        (503, {}, b"", State.WARNING, "fault"),
    ],
)
def test_each_answer_has_its_meaning(
    status: int, headers: dict[str, str], body: bytes, state: State, said: str
) -> None:
    finding = judge_answer(status, headers, body, Settings())
    assert finding.state is state
    assert said in finding.message
    assert bool(finding.fix) is (state is not State.FINE)


@pytest.mark.parametrize(
    ("seconds", "state"), [(0, State.FINE), (-40, State.WARNING), (40, State.WARNING), (400, State.WRONG)]
)
def test_the_clock_is_compared_with_the_date_of_the_answer(seconds: int, state: State) -> None:
    now = 1_800_000_000.0
    assert judge_clock(email.utils.formatdate(now + seconds, usegmt=True), now).state is state
    assert judge_clock("", now).state is State.WARNING


def test_a_certificate_that_ends_soon_is_a_warning() -> None:
    assert judge_certificate("TLSv1.3", ends=40 * 86_400, now=0).state is State.FINE
    assert judge_certificate("TLSv1.3", ends=9 * 86_400, now=0).state is State.WARNING


async def test_one_request_is_sent_and_a_wrong_key_is_known() -> None:
    async with await start_simulator(SimulatorOptions(api_key=KEY)) as riskos:
        for key, state in ((KEY, State.WARNING), ("another", State.WRONG)):
            settings = Settings(riskos_url=riskos.url, api_key=key)
            found = {finding.subject: finding async for finding in examine(AccountSettings("default", settings))}
            assert found["key at RiskOS"].state is state
        assert riskos.stats().requests == 2


async def test_where_nobody_listens_it_cannot_be_reached(unused_tcp_port: int) -> None:
    settings = Settings(riskos_url=f"http://127.0.0.1:{unused_tcp_port}", api_key=KEY)
    (finding,) = [each async for each in examine(AccountSettings("default", settings))]
    assert finding.unreachable


@pytest.mark.parametrize(
    ("changes", "state", "said"),
    [
        ({"refuse_with": 401}, State.WRONG, "401"),
        ({"refuse_with": 403}, State.WRONG, "403"),
        ({"refuse_with": 503}, State.WARNING, "fault"),
        ({"rate": 0}, State.WRONG, "0 requests a second"),
        ({"quota": 0}, State.WRONG, "0 requests a second"),
        ({"quota": 0, "header_style": RateHeaderStyle.NONE}, State.WARNING, "spent"),
    ],
)
async def test_a_riskos_that_refuses_is_told_with_what_to_do(changes: dict[str, Any], state: State, said: str) -> None:
    async with await start_simulator(SimulatorOptions(api_key=KEY, **changes)) as riskos:
        settings = Settings(riskos_url=riskos.url, api_key=KEY)
        found = {finding.subject: finding async for finding in examine(AccountSettings("default", settings))}
    assert (found["key at RiskOS"].state, said in found["key at RiskOS"].message) == (state, True)
    assert found["key at RiskOS"].fix


async def test_a_clock_that_is_wrong_is_seen_by_the_answer() -> None:
    late = email.utils.formatdate(time.time() - 3_600, usegmt=True)
    async with saying(json(404, b'{"message": "Evaluation not found"}', Date=late)) as server:
        settings = Settings(riskos_url=server.url, api_key=KEY)
        found = {finding.subject: finding async for finding in examine(AccountSettings("default", settings))}
    assert (found["clock"].state, found["key at RiskOS"].state) == (State.WRONG, State.FINE)
    assert "NTP" in found["clock"].fix


async def test_the_request_names_the_program_and_its_version() -> None:
    async with saying(json(404, b'{"message": "Evaluation not found"}')) as server:
        settings = Settings(riskos_url=server.url, api_key=KEY)
        assert [each async for each in examine(AccountSettings("default", settings))]
    (heard,) = [each for each in server.heard if each.method == "GET"]
    assert heard.headers["user-agent"] == archiver().replace(" ", "/")


async def test_a_key_that_is_missing_is_not_asked_with() -> None:
    async with await start_simulator(SimulatorOptions(api_key=KEY)) as riskos:
        found = [
            finding.subject async for finding in examine(AccountSettings("default", Settings(riskos_url=riskos.url)))
        ]
        assert (found, riskos.stats().requests) == (["RiskOS"], 0)


async def test_an_account_on_hold_is_not_asked_about(redis: Redis, redis_url: str) -> None:
    await Holds(redis).place_manual(DEFAULT_ACCOUNT, "an audit")
    async with await start_simulator(SimulatorOptions(api_key=KEY)) as riskos:
        settings = Settings(riskos_url=riskos.url, api_key=KEY, redis_url=redis_url)
        found = {finding.subject: finding async for finding in examine(AccountSettings("default", settings))}
        assert riskos.stats().requests == 0
    assert (found["key at RiskOS"].state, "resume" in found["key at RiskOS"].fix) == (State.WARNING, True)
