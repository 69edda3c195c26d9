"""`simulate --webhook` delivers events as RiskOS does, and `serve` can read them."""

import base64
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from scripts.serve.api.event import RequestedEvaluation, read_event
from scripts.simulator.scenarios import Scenario, eval_id_for
from scripts.simulator.webhook import make_event
from tests.commands import Shell

DOCUMENTED, NO_STEP = (eval_id_for(each, 1) for each in (Scenario.DOCUMENTED, Scenario.NO_DOCV_STEP))


@pytest.fixture
async def received() -> AsyncIterator[list[dict[str, Any]]]:
    """Run a webhook that records events; it answers 503 to `reevaluation`. The first entry has its URL."""
    events: list[dict[str, Any]] = []

    async def record(request: web.Request) -> web.Response:
        body = await request.json()
        events.append({"authorization": request.headers["Authorization"], **body})
        return web.Response(status=503 if body["event_type"] == "reevaluation" else 200, text="taken")

    application = web.Application()
    application.add_routes([web.post("/webhooks/riskos", record)])
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    events.append({"url": f"http://127.0.0.1:{runner.addresses[0][1]}/webhooks/riskos"})
    yield events
    await runner.cleanup()


@pytest.mark.parametrize("event_type", ["evaluation_completed", "reevaluation", "case_attachment_added"])
def test_serve_can_read_a_simulated_event(event_type: str) -> None:
    found = read_event(make_event(DOCUMENTED, event_type), "sandbox")
    assert isinstance(found, RequestedEvaluation)
    assert (found.eval_id, found.event_type) == (DOCUMENTED, event_type)
    assert found.event_id
    assert found.happened_at


def test_an_event_has_the_facts_of_the_evaluation_record() -> None:
    found = read_event(make_event(NO_STEP, "evaluation_completed"), "sandbox")
    assert isinstance(found, RequestedEvaluation)
    assert found.is_without_docv


async def test_the_secret_comes_from_a_file_or_from_the_settings(
    received: list[dict[str, Any]], tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text("user:password\n", "utf-8")
    shell = Shell(tmp_path, {"DOCV_WEBHOOK_SECRETS": "bearer-token-of-a-webhook,another-token-of-a-webhook"})
    webhook = ("--webhook", received[0]["url"])
    delivered = await shell.run("simulate", *webhook, DOCUMENTED)
    assert (delivered.code, delivered.out) == (0, f"{DOCUMENTED}  200  taken\n")
    assert (await shell.run("simulate", *webhook, "--ids", "2", "--secret-file", "secret")).code == 0
    assert [event["authorization"] for event in received[1:]] == [
        "Bearer bearer-token-of-a-webhook",
        *[f"Basic {base64.b64encode(b'user:password').decode()}"] * 2,
    ]
    assert len({event["event_id"] for event in received[1:]}) == 3


async def test_simulate_exits_with_1_when_refused_and_3_when_unreachable(
    received: list[dict[str, Any]], tmp_path: Path
) -> None:
    shell = Shell(tmp_path, {"DOCV_WEBHOOK_SECRETS": "bearer-token-of-a-webhook"})
    refused = await shell.run("simulate", "--webhook", received[0]["url"], "--event-type", "reevaluation")
    assert (refused.code, "  503  taken" in refused.out) == (1, True)
    assert (await shell.run("simulate", "--webhook", "http://127.0.0.1:1/webhooks/riskos")).code == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((DOCUMENTED,), "--webhook URL"),
        (("--webhook", "http://127.0.0.1:1/"), "--secret-file"),
        (("--webhook", "http://127.0.0.1:1/", "--secret-file", "secret", "no-id"), "a UUID such as"),
        (("--webhook", "nowhere", "--secret-file", "secret"), "expected a URL"),
    ],
)
async def test_simulate_exits_with_2_when_an_option_is_missing_or_invalid(
    tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    (tmp_path / "secret").write_text("token", "utf-8")
    finished = await Shell(tmp_path).run("simulate", *arguments)
    assert finished.code == 2
    assert message in " ".join(finished.err.split())
