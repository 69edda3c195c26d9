"""`doctor --evaluation` sends one request and explains its answer; no image is stored."""

from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from redis.asyncio import Redis

from scripts.doctor.evaluation import examine
from scripts.doctor.finding import Finding, State
from scripts.simulator.options import SimulatorOptions
from scripts.simulator.scenarios import Scenario, eval_id_for
from scripts.simulator.server import start_simulator
from tasks.resilience.holds import Holds
from tests.commands import KEY, Shell
from tests.riskos import Reply, Then, bundle_reply, http, json_reply, serve_replies
from worker.config.accounts_file import AccountSettings
from worker.config.settings import Settings

ZIP = b"PK\x03\x04"
LARGE = 5_000_000


async def try_evaluation(url: str, **changes: Any) -> Finding:
    settings = Settings(riskos_url=url, api_key=KEY, **changes)
    return await examine(AccountSettings("default", settings), str(uuid4()))


@pytest.mark.parametrize(
    ("reply", "state", "sentence", "fix"),
    [
        (bundle_reply(ZIP + bytes(500)), State.FINE, "delivered a ZIP with 504 bytes", ""),
        (bundle_reply(ZIP + bytes(LARGE)), State.FINE, "delivered a ZIP with 5,000,004 bytes", ""),
        (
            bundle_reply(ZIP + bytes(500), f"attachment; filename={uuid4()}_document.zip"),
            State.WRONG,
            "another evaluation",
            "gateway",
        ),
        (http(200, b"<html>", headers={"Content-Type": "text/html"}), State.WRONG, "text/html", "DOCV_RISKOS_URL"),
        (
            http(200, b"<" + bytes(LARGE), headers={"Content-Type": "text/html"}),
            State.WRONG,
            "200 with 5,000,001 bytes of text/html, not a ZIP",
            "proxy",
        ),
        (http(302, b"", headers={"Location": "/login"}), State.WRONG, "302", "proxy"),
        (json_reply(400, b'{"message": "No Documents Found"}'), State.WRONG, "should have documents", "Image Request"),
        (
            json_reply(400, b'{"message": "No Documents Found"}'),
            State.WRONG,
            "without X-API-Version",
            "DOCV_API_VERSION",
        ),
        (json_reply(400, b'{"message": "bad\\u001b[2J [red]"}'), State.WRONG, "bad [2J [red]", "DOCV_API_VERSION"),
        (json_reply(404, b'{"message": "Not Found"}'), State.WRONG, "not an error of RiskOS", "gateway"),
        (json_reply(404, b'{"message": "Evaluation not found"}'), State.WRONG, "does not know it", "DOCV_ENVIRONMENT"),
        (json_reply(401, b"{}"), State.WRONG, "401: the key is not accepted", "environment"),
        (json_reply(403, b"{}"), State.WRONG, "403: the key may not read this evaluation", "sub-account or workflow"),
        (json_reply(429, b"{}"), State.WARNING, "429", "later"),
        (json_reply(503, b"{}"), State.WARNING, "503: RiskOS failed", "later"),
    ],
)
async def test_each_answer_is_explained_with_a_fix(reply: bytes, state: State, sentence: str, fix: str) -> None:
    async with serve_replies(reply) as server:
        finding = await try_evaluation(server.url)
    assert (finding.state, sentence in finding.message, fix in finding.fix) == (state, True, True), finding
    assert bool(finding.fix) is (state is not State.FINE)
    assert len(server.requests) == 1


async def test_the_api_version_is_sent_and_shown() -> None:
    async with serve_replies(json_reply(400, b'{"message": "No Documents Found"}')) as server:
        finding = await try_evaluation(server.url, api_version="2025-01-01.orion")
    assert "asked with X-API-Version 2025-01-01.orion" in finding.message
    assert server.requests[0].headers["x-api-version"] == "2025-01-01.orion"


async def test_only_the_beginning_of_an_endless_body_is_read() -> None:
    endless = b"HTTP/1.1 200 OK\r\nContent-Type: application/zip\r\n\r\n" + ZIP
    async with serve_replies(Reply(endless, Then.SEND_ENDLESSLY)) as server:
        finding = await try_evaluation(server.url)
    assert (finding.state, finding.message) == (State.FINE, "delivered a ZIP with more than 65,536 bytes")
    assert server.sent < 64 << 20


async def test_riskos_is_unreachable_when_it_does_not_answer(unused_tcp_port: int) -> None:
    assert (await try_evaluation(f"http://127.0.0.1:{unused_tcp_port}")).unreachable
    async with serve_replies(Reply(b"", Then.RESET)) as server:
        assert (await try_evaluation(server.url)).unreachable


async def test_no_request_is_sent_when_the_account_is_on_hold(redis: Redis, redis_url: str) -> None:
    await Holds(redis).place_manual("default", "an audit")
    async with serve_replies(bundle_reply(ZIP)) as server:
        finding = await try_evaluation(server.url, redis_url=redis_url)
    assert (finding.state, "resume" in finding.fix, server.requests) == (State.WARNING, True, [])


# The command


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    (tmp_path / "archive").mkdir()
    return Shell(tmp_path, {"DOCV_API_KEY": KEY})


@pytest.mark.parametrize(
    ("scenario", "code", "sentence"),
    [
        (Scenario.DOCUMENTED, 0, "delivered a ZIP with "),
        (Scenario.NO_DOCUMENTS, 1, 'step "Socure Image Request"'),
    ],
)
async def test_the_command_requests_the_evaluation_after_the_other_checks(
    shell: Shell, scenario: Scenario, code: int, sentence: str
) -> None:
    async with await start_simulator(SimulatorOptions(api_key=KEY)) as riskos:
        shell.settings["DOCV_RISKOS_URL"] = riskos.url
        finished = await shell.run("doctor", "--evaluation", eval_id_for(scenario, 1))
        assert riskos.stats().requests == 2
    (line,) = (line for line in finished.out.splitlines() if line.split()[1] == "evaluation")
    assert (finished.code, sentence in line) == (code, True), finished
    assert {path.name for path in shell.folder.rglob("*")} <= {"archive", ".docv-archive"}


async def test_the_evaluation_is_requested_with_the_given_account(shell: Shell) -> None:
    async with await start_simulator(SimulatorOptions(api_key=KEY), ["key-of-kyb"]) as riskos:
        shell.settings |= {"DOCV_RISKOS_URL": riskos.url, "DOCV_ACCOUNTS": "accounts.toml"}
        (shell.folder / "accounts.toml").write_text(f'[kyb]\napi_key = "key-of-kyb"\nriskos_url = "{riskos.url}"\n')
        (shell.folder / "accounts.toml").chmod(0o600)
        eval_id = eval_id_for(Scenario.DOCUMENTED, 1)
        finished = await shell.run("doctor", "--evaluation", eval_id, "--account", "kyb")
    assert finished.code == 0, finished
    assert "kyb: evaluation " in finished.out
    assert "default: evaluation " not in finished.out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--evaluation", "no-id"), "is not a valid evaluation ID"),
        (("--evaluation", str(uuid4()), "--account", "kyb"), "no account 'kyb'"),
        (("--account", "kyb"), "give both"),
    ],
)
async def test_wrong_arguments_are_refused_in_one_sentence(
    shell: Shell, arguments: tuple[str, ...], sentence: str
) -> None:
    finished = await shell.run("doctor", *arguments)
    assert (finished.code, finished.out, sentence in finished.err) == (2, "", True), finished
    assert "Traceback" not in finished.err
