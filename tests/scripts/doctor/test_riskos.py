"""The check of RiskOS sends one request about an unknown evaluation, and judges the key by the answer."""

import email.utils
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from pydantic import SecretStr
from redis.asyncio import Redis

from scripts.doctor.finding import Finding, State
from scripts.doctor.riskos import examine, judge_answer, judge_certificate, judge_clock
from scripts.simulator.options import RateHeaderStyle, SimulatorOptions
from scripts.simulator.server import start_simulator
from tasks.model.account import DEFAULT_ACCOUNT
from tasks.resilience.holds import Holds
from tasks.storage.manifest import archiver
from tests.commands import KEY
from tests.proxies import http_proxy
from tests.riskos import Reply, json_reply, serve_replies, serve_requests
from tests.tls import server_context
from worker.config.accounts_file import AccountSettings
from worker.config.settings import Settings


@pytest.mark.parametrize(
    ("status", "headers", "body", "state", "sentence"),
    [
        (404, {}, b'{"message": "Evaluation not found"}', State.FINE, "accepted"),
        (400, {}, b'{"error": "unknown evaluation"}', State.FINE, "accepted"),
        (400, {}, b'["No Documents Found"]', State.FINE, "accepted"),
        (404, {}, b"", State.WRONG, "did not come from RiskOS"),
        (404, {}, b"{}", State.WRONG, "did not come from RiskOS"),
        (404, {}, b'{"message": "no Route matched with those values"}', State.WRONG, "did not come from RiskOS"),
        (405, {}, b'{"message": "Evaluation not found"}', State.WRONG, "did not come from RiskOS"),
        (404, {}, b"<html>", State.WRONG, "did not come from RiskOS"),
        (200, {}, b"{}", State.WRONG, "did not come from RiskOS"),
        (200, {}, b"PK\x03\x04", State.WARNING, "does not exist"),
        (302, {}, b"", State.WRONG, "did not come from RiskOS"),
        (401, {}, b"{}", State.WRONG, "not accepted"),
        (403, {}, b"{}", State.WRONG, "lacks permission"),
        (429, {"X-RateLimit-Limit": "0"}, b"{}", State.WRONG, "0 requests"),
        (429, {}, b'{"message": "Not activated"}', State.WRONG, "0 requests"),
        (429, {}, b"{}", State.WARNING, "spent"),
        (503, {}, b"", State.WARNING, "RiskOS failed"),
    ],
)
def test_each_answer_is_explained(
    status: int, headers: dict[str, str], body: bytes, state: State, sentence: str
) -> None:
    finding = judge_answer(status, headers, body, Settings())
    assert finding.state is state
    assert sentence in finding.message
    assert bool(finding.fix) is (state is not State.FINE)


@pytest.mark.parametrize(
    ("seconds", "state"), [(0, State.FINE), (-40, State.WARNING), (40, State.WARNING), (400, State.WRONG)]
)
def test_the_clock_is_compared_with_the_date_of_the_answer(seconds: int, state: State) -> None:
    now = 1_800_000_000.0
    assert judge_clock(email.utils.formatdate(now + seconds, usegmt=True), now).state is state
    assert judge_clock("", now).state is State.WARNING


def test_a_certificate_is_a_warning_when_it_expires_soon() -> None:
    assert judge_certificate("TLSv1.3", ends=40 * 86_400, now=0).state is State.FINE
    assert judge_certificate("TLSv1.3", ends=9 * 86_400, now=0).state is State.WARNING


async def test_a_wrong_key_is_found_with_one_request() -> None:
    async with await start_simulator(SimulatorOptions(api_key=KEY)) as riskos:
        for key, state in ((KEY, State.WARNING), ("another", State.WRONG)):
            settings = Settings(riskos_url=riskos.url, api_key=key)
            found = {finding.subject: finding async for finding in examine(AccountSettings("default", settings))}
            assert found["key at RiskOS"].state is state
        assert riskos.stats().requests == 2


async def test_riskos_is_unreachable_when_nothing_listens(unused_tcp_port: int) -> None:
    settings = Settings(riskos_url=f"http://127.0.0.1:{unused_tcp_port}", api_key=KEY)
    (finding,) = [each async for each in examine(AccountSettings("default", settings))]
    assert finding.unreachable


@pytest.mark.parametrize(
    ("changes", "state", "sentence"),
    [
        ({"refuse_with": 401}, State.WRONG, "401"),
        ({"refuse_with": 403}, State.WRONG, "403"),
        ({"refuse_with": 503}, State.WARNING, "RiskOS failed"),
        ({"rate": 0}, State.WRONG, "0 requests per second"),
        ({"quota": 0}, State.WRONG, "0 requests per second"),
        ({"quota": 0, "header_style": RateHeaderStyle.NONE}, State.WARNING, "spent"),
    ],
)
async def test_a_refusal_by_riskos_is_reported_with_a_fix(changes: dict[str, Any], state: State, sentence: str) -> None:
    async with await start_simulator(SimulatorOptions(api_key=KEY, **changes)) as riskos:
        settings = Settings(riskos_url=riskos.url, api_key=KEY)
        found = {finding.subject: finding async for finding in examine(AccountSettings("default", settings))}
    assert (found["key at RiskOS"].state, sentence in found["key at RiskOS"].message) == (state, True)
    assert found["key at RiskOS"].fix


async def test_a_wrong_clock_is_found_by_the_date_of_the_answer() -> None:
    late = email.utils.formatdate(time.time() - 3_600, usegmt=True)
    async with serve_replies(json_reply(404, b'{"message": "Evaluation not found"}', Date=late)) as server:
        settings = Settings(riskos_url=server.url, api_key=KEY)
        found = {finding.subject: finding async for finding in examine(AccountSettings("default", settings))}
    assert (found["clock"].state, found["key at RiskOS"].state) == (State.WRONG, State.FINE)
    assert "NTP" in found["clock"].fix


async def test_the_request_names_the_program_and_its_version() -> None:
    async with serve_replies(json_reply(404, b'{"message": "Evaluation not found"}')) as server:
        settings = Settings(riskos_url=server.url, api_key=KEY)
        assert [each async for each in examine(AccountSettings("default", settings))]
    (request,) = [each for each in server.requests if each.method == "GET"]
    assert request.headers["user-agent"] == archiver().replace(" ", "/")


async def test_no_request_is_sent_without_a_key() -> None:
    async with await start_simulator(SimulatorOptions(api_key=KEY)) as riskos:
        found = [
            finding.subject async for finding in examine(AccountSettings("default", Settings(riskos_url=riskos.url)))
        ]
        assert (found, riskos.stats().requests) == (["RiskOS"], 0)


async def test_no_request_is_sent_when_the_account_is_on_hold(redis: Redis, redis_url: str) -> None:
    await Holds(redis).place_manual(DEFAULT_ACCOUNT, "an audit")
    async with await start_simulator(SimulatorOptions(api_key=KEY)) as riskos:
        settings = Settings(riskos_url=riskos.url, api_key=KEY, redis_url=redis_url)
        found = {finding.subject: finding async for finding in examine(AccountSettings("default", settings))}
        assert riskos.stats().requests == 0
    assert (found["key at RiskOS"].state, "resume" in found["key at RiskOS"].fix) == (State.WARNING, True)


async def examine_through_proxy(url: str, proxy: str | None) -> dict[str, Finding]:
    settings = Settings(riskos_url=url, api_key=KEY, proxy=SecretStr(proxy) if proxy else None)
    return {finding.subject: finding async for finding in examine(AccountSettings("default", settings))}


async def test_the_proxy_is_shown_without_its_password() -> None:
    async with await start_simulator(SimulatorOptions(api_key=KEY)) as riskos, http_proxy() as proxy:
        found = await examine_through_proxy(riskos.url, proxy.url.replace("://", "://user:geheim@"))
    assert found["proxy"].message == f"{urlsplit(proxy.url).netloc} answers, and requests to RiskOS go through it"
    assert found["key at RiskOS"].state is not State.WRONG
    assert len(proxy.requests) == 1
    assert "geheim" not in str(found)


@pytest.mark.parametrize(
    ("login", "state"), [("user:word@", State.FINE), ("user:wrong@", State.WRONG), ("", State.WRONG)]
)
async def test_a_tunnel_through_a_proxy_with_a_login_is_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, login: str, state: State
) -> None:
    tls, authority = server_context(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority))
    reply = Reply(json_reply(404, b'{"message": "Evaluation not found"}'))
    async with serve_requests(lambda _: reply, tls) as riskos, http_proxy(login="user:word") as proxy:
        found = await examine_through_proxy(riskos.url, proxy.url.replace("://", f"://{login}"))
    assert found["proxy"].state is state
    if state is State.FINE:
        assert (found["key at RiskOS"].state, len(proxy.requests), len(riskos.requests)) == (State.FINE, 1, 1)
    else:
        assert (found["proxy"].message, riskos.requests) == (
            "407: it requires user and password, or does not accept them",
            [],
        )


@pytest.mark.parametrize(("status", "fix"), [(407, "DOCV_PROXY=http://user:password@"), (403, "allow riskos")])
async def test_a_refusing_proxy_is_reported(status: int, fix: str) -> None:
    async with http_proxy(f"HTTP/1.1 {status} No\r\nContent-Length: 0\r\n\r\n".encode()) as proxy:
        finding = [each async for each in examine(account_with_proxy(proxy.url))][-1]
    assert (finding.subject, finding.state, finding.unreachable) == ("proxy", State.WRONG, True)
    assert str(status) in finding.message
    assert fix in finding.fix


@pytest.mark.parametrize(
    ("proxy", "sentence"), [("http://127.0.0.1:1", "does not answer"), ("http://no.invalid", "cannot be resolved")]
)
async def test_an_unreachable_proxy_is_reported(proxy: str, sentence: str) -> None:
    (finding,) = [each async for each in examine(account_with_proxy(proxy))]
    assert (finding.subject, finding.unreachable) == ("proxy", True)
    assert sentence in finding.message


async def test_an_unusable_client_certificate_is_reported() -> None:
    settings = Settings(riskos_url="http://127.0.0.1:9", api_key=KEY, client_cert="/no/such.pem")
    (finding,) = [each async for each in examine(AccountSettings("default", settings))]
    assert finding.message.startswith("DOCV_CLIENT_CERT: /no/such.pem cannot be used")


def account_with_proxy(proxy: str) -> AccountSettings:
    return AccountSettings(
        "default", Settings(riskos_url="https://riskos.example", api_key=KEY, proxy=SecretStr(proxy))
    )
