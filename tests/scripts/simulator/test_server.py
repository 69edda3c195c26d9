import asyncio
import signal
import socket
import subprocess
import sys
import time

import aiohttp
import orjson
import pytest

from scripts.simulator.bundles import bundle_of
from scripts.simulator.options import RateHeaderStyle, SimulatorOptions
from scripts.simulator.scenarios import Scenario, eval_id_for
from scripts.simulator.server import start_simulator
from tests.scripts.simulator.conftest import Client

PLAIN = eval_id_for(Scenario.DOCUMENTED, 1)


@pytest.mark.parametrize("key", [None, "another key", ""])
async def test_a_request_is_answered_401_without_the_right_key(client: Client, key: str | None) -> None:
    assert (await client.get_documents(PLAIN, key)).status == 401
    assert client.simulator.stats().granted == 0


@pytest.mark.parametrize("eval_id", ["no-uuid", "%7B0b54a4d4-6e5b-4f3c-9d2a-7c1f0e8b9a10%7D", "1"])
async def test_a_request_is_answered_400_when_the_id_is_not_a_uuid(client: Client, eval_id: str) -> None:
    assert (await client.get_documents(eval_id)).status == 400


@pytest.mark.parametrize("path", ["/", "/api/evaluation", f"/api/evaluation/{PLAIN}/", "/api/evaluation//documents"])
async def test_a_wrong_path_is_answered_404(client: Client, path: str) -> None:
    assert (await client.send("GET", path)).status == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "HEAD"])
async def test_other_methods_are_answered_405(client: Client, method: str) -> None:
    assert (await client.send(method, f"/api/evaluation/{PLAIN}/documents")).status == 405


async def test_image_bytes_sets_the_size_of_pictures() -> None:
    async with (
        await start_simulator(SimulatorOptions(image_bytes=100_000)) as simulator,
        aiohttp.ClientSession() as http,
    ):
        url = f"{simulator.url}/api/evaluation/{PLAIN}/documents"
        async with http.get(url, headers={"Authorization": "Bearer simulated-key"}) as response:
            body = await response.read()
    assert body == bundle_of(PLAIN, 100_000)
    assert len(body) > 200_000


async def test_the_rate_is_enforced_and_counted(client: Client) -> None:
    client.simulator.change(rate=5, header_style="standard")
    responses = await asyncio.gather(*[client.get_documents(PLAIN) for _ in range(12)])
    refused = [response for response in responses if response.status == 429]
    stats = client.simulator.stats()
    assert len(refused) == stats.refused_by_rate == 7
    assert {response.headers["Retry-After"] for response in refused} == {"1"}
    assert {response.headers["RateLimit-Limit"] for response in responses} == {"5"}
    assert stats.worst_second == 12
    assert stats.worst_second_granted == stats.granted == 5
    assert stats.by_status == {200: 5, 429: 7}
    assert stats.by_evaluation == {PLAIN: 12}


async def test_a_rate_limited_request_does_not_advance_the_sequence(client: Client) -> None:
    eval_id = eval_id_for(Scenario.ERROR_500_ONCE, 1)
    client.simulator.change(rate=0)
    assert (await client.get_documents(eval_id)).status == 429
    client.simulator.change(rate=None)
    assert (await client.get_documents(eval_id)).status == 500


async def test_a_429_has_no_rate_headers_with_the_style_none(client: Client) -> None:
    client.simulator.change(rate=0, header_style=RateHeaderStyle.NONE)
    response = await client.get_documents(PLAIN)
    assert response.status == 429
    assert not [name for name in response.headers if "rate" in name.lower() or "retry" in name.lower()]


async def test_a_429_names_the_quota_when_it_is_spent(client: Client) -> None:
    client.simulator.change(quota=1, header_style="x", day_seconds=100)
    assert (await client.get_documents(PLAIN)).status == 200
    response = await client.get_documents(PLAIN)
    assert response.status == 429
    assert "quota" in orjson.loads(response.body)["message"]
    assert 98 <= int(response.headers["X-Retry-After"]) <= 100
    assert client.simulator.stats().refused_by_quota == 1


async def test_a_neighbour_uses_the_same_rate_and_has_its_own_counters() -> None:
    options = SimulatorOptions(rate=50, neighbour=(50, 50))
    async with await start_simulator(options) as simulator, aiohttp.ClientSession() as http:
        left = 50
        while left > 45:
            await asyncio.sleep(0.02)
            url = f"{simulator.url}/api/evaluation/{PLAIN}/documents"
            async with http.get(url, headers={"Authorization": "Bearer simulated-key"}) as response:
                left = int(response.headers["X-Ratelimit-Remaining-Window"])
        async with http.get(f"{simulator.url}/__stats") as response:
            stats = orjson.loads(await response.read())
    assert stats["neighbour"]["requests"] >= 5 - stats["requests"]
    assert stats["neighbour"]["rates"][-1][0] == 50
    assert stats["neighbour"]["refused_after"] == []


async def test_latency_follows_the_options(client: Client) -> None:
    client.simulator.change(latency_ms=150, jitter_ms=50)
    began = time.monotonic()
    await client.get_documents(PLAIN)
    assert time.monotonic() - began >= 0.1


@pytest.mark.parametrize("status", [401, 403, 500, 503])
async def test_refuse_with_answers_all_requests_until_it_is_removed(client: Client, status: int) -> None:
    assert (await client.send("POST", "/__control", body={"refuse_with": status})).status == 204
    assert (await client.get_documents(PLAIN)).status == status
    assert (await client.send("POST", "/__control", body={"refuse_with": None})).status == 204
    assert (await client.get_documents(PLAIN)).status == 200


@pytest.mark.parametrize("body", [{"api_key": "mine"}, {"rate": -1}, {"no_such": 1}, [], None])
async def test_an_invalid_change_is_answered_400_and_changes_nothing(client: Client, body: object) -> None:
    before = client.simulator.options
    response = await client.send("POST", "/__control", body=body)
    assert response.status == 400
    assert orjson.loads(response.body)["error"]
    assert client.simulator.options == before


async def test_stats_can_be_read_and_reset(client: Client) -> None:
    await client.get_documents(PLAIN)
    await client.get_documents(eval_id_for(Scenario.NOT_FOUND, 1))
    everything = orjson.loads((await client.send("GET", "/__stats", key=None)).body)
    assert everything["requests"] == everything["granted"] == 2
    assert everything["by_status"] == {"200": 1, "404": 1}
    assert everything["by_evaluation"][PLAIN] == 1
    one = orjson.loads((await client.send("GET", f"/__stats?eval_id={PLAIN}")).body)
    assert one["by_evaluation"] == {PLAIN: 1}
    assert (await client.send("POST", "/__reset")).status == 204
    assert client.simulator.stats().requests == 0


async def test_a_reset_clears_the_stats_and_keeps_the_sequences(client: Client) -> None:
    eval_id = eval_id_for(Scenario.ERROR_500_ONCE, 1)
    await client.get_documents(eval_id)
    client.simulator.reset()
    assert (await client.get_documents(eval_id)).status == 200
    assert client.simulator.stats().by_evaluation == {eval_id: 1}


async def test_control_requests_of_other_machines_are_answered_403(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aiohttp.web.Request, "remote", "192.0.2.1")
    for method, path in (("POST", "/__control"), ("POST", "/__reset"), ("GET", "/__stats")):
        assert (await client.send(method, path, body={})).status == 403
    assert (await client.get_documents(PLAIN)).status == 200


async def test_start_simulator_raises_os_error_when_the_address_is_in_use() -> None:
    with socket.create_server(("127.0.0.1", 0)) as used, pytest.raises(OSError, match="in use"):
        await start_simulator(SimulatorOptions(port=used.getsockname()[1]))


@pytest.mark.parametrize("scenario", [Scenario.SLOW_HEADERS, Scenario.SLOW_BODY])
async def test_stop_does_not_wait_for_a_slow_response(client: Client, scenario: Scenario) -> None:
    client.simulator.change(slow_seconds=60)
    request = asyncio.ensure_future(client.get_documents(eval_id_for(scenario, 1)))
    await asyncio.sleep(0.3)
    assert client.simulator.stats().by_status == {200: 1}
    assert not request.done()
    await asyncio.wait_for(client.simulator.stop(), 30)
    with pytest.raises(aiohttp.ClientError):
        await request


async def test_nothing_is_logged_when_a_client_closes_its_connection(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    client.simulator.change(slow_seconds=0.3)
    for scenario in (Scenario.SLOW_HEADERS, Scenario.SLOW_BODY):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.get_documents(eval_id_for(scenario, 1)), 0.1)
    await asyncio.sleep(0.4)
    assert (await client.get_documents(PLAIN)).status == 200
    assert caplog.records == []


PROGRAM = """
from scripts.simulator.options import SimulatorOptions
from scripts.simulator.server import serve
serve(SimulatorOptions(api_key="a-secret-key", slow_seconds=60), lambda url: print(url, flush=True))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_simulator_and_the_key_is_not_printed(number: signal.Signals) -> None:
    command = [sys.executable, "-X", "dev", "-W", "error", "-c", PROGRAM]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout
        host, _, port = process.stdout.readline().strip().removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port))) as connection:
            path = f"/api/evaluation/{eval_id_for(Scenario.SLOW_BODY, 1)}/documents"
            lines = (f"GET {path} HTTP/1.1", "Host: x", "Authorization: Bearer a-secret-key", "", "")
            connection.sendall("\r\n".join(lines).encode())
            assert b" 200 OK" in connection.recv(64)
            process.send_signal(number)
            # The body would take a minute.
            output, errors = process.communicate(timeout=30)
    assert process.returncode == 0
    # In this mode, asyncio reports each step of a tenth of a second or more; on a busy machine that is not a fault.
    reported = [line for line in errors.splitlines() if not line.startswith("Executing <")]
    assert (output, reported) == ("", [])
    assert "a-secret-key" not in errors


@pytest.mark.parametrize(
    ("scenario", "status", "eval_status"),
    [
        (Scenario.DOCUMENTED, 200, "evaluation_completed"),
        (Scenario.NOT_COMPLETE, 200, "evaluation_paused"),
        (Scenario.NOT_FOUND, 404, None),
    ],
)
async def test_the_record_of_an_evaluation_is_returned_and_counted(
    client: Client, scenario: Scenario, status: int, eval_status: str | None
) -> None:
    eval_id = eval_id_for(scenario, 1)
    answer = await client.send("GET", f"/api/evaluation/{eval_id}")
    assert (answer.status, orjson.loads(answer.body).get("eval_status")) == (status, eval_status)
    assert (await client.send("GET", f"/api/evaluation/{eval_id}", "another key")).status == 401
    assert (client.simulator.stats().requests, client.simulator.stats().records) == (2, 2)
