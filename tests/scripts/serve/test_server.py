"""The server process: how it starts, which settings it refuses, and how it ends."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from redis.asyncio import Redis

from tasks.ledger.ledger import Ledger
from tests.commands import Shell, finish
from tests.conftest import S3
from tests.scripts.serve.conftest import INTAKE, OPERATOR, PAIR, TOKEN, Client, basic, event


@pytest.fixture
def shell(redis: Redis, redis_url: str, tmp_path: Path) -> Shell:
    return Shell(tmp_path, {"DOCV_REDIS_URL": redis_url, "DOCV_WEBHOOK_SECRETS": f"{TOKEN}, {PAIR}"})


@asynccontextmanager
async def running(shell: Shell, *arguments: str) -> AsyncIterator[tuple[Client, asyncio.subprocess.Process]]:
    """Start a server process. It is killed at the end of the block if it still runs."""
    process = await shell.start("serve", "--port", "0", *arguments)
    assert process.stdout
    try:
        line = (await asyncio.wait_for(process.stdout.readline(), 60)).decode()
        assert line.startswith("docv-archive listens at "), (await finish(process)).err
        async with aiohttp.ClientSession() as http:
            yield Client(line.split()[-1], http), process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_an_answered_event_is_in_the_ledger(shell: Shell, redis: Redis, eval_id: str) -> None:
    async with running(shell) as (client, process):
        assert (await client.deliver(event(eval_id))).status == 200
        assert (await client.submit({"eval_ids": [eval_id]})).status == 401, "no tokens are set"
        process.send_signal(signal.SIGTERM)
        finished = await finish(process, seconds=10)
    assert finished.code == 0, finished.err
    (entry,) = await Ledger(redis).lease([eval_id], token="t")
    assert entry.trigger.event_type == "evaluation_completed"
    assert eval_id not in finished.err
    assert TOKEN not in finished.err
    assert all(json.loads(line) for line in finished.err.splitlines())


@pytest.mark.parametrize("signal_", [signal.SIGTERM, signal.SIGINT])
async def test_a_request_under_way_is_answered_when_the_process_is_terminated(
    shell: Shell, redis: Redis, eval_id: str, signal_: signal.Signals
) -> None:
    body = json.dumps(event(eval_id)).encode()
    async with running(shell) as (client, process):
        host, port = client.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        head = f"POST /webhooks/riskos HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"
        head += f"Expect: 100-continue\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode())
        assert b" 100 " in await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
        process.send_signal(signal_)
        await _wait_until_refused(host, int(port))
        writer.write(body)
        answer = await asyncio.wait_for(reader.read(), 10)
        writer.close()
        finished = await finish(process, seconds=10)
    assert b" 200 OK" in answer.splitlines()[0]
    assert finished.code == 0, finished.err
    assert await redis.hexists("docv:ledger:entries", eval_id)


async def _wait_until_refused(host: str, port: int) -> None:
    """Wait until new connections are refused."""
    async with asyncio.timeout(10):
        while True:
            try:
                _, writer = await asyncio.open_connection(host, port)
            except ConnectionError:
                return
            writer.close()
            await asyncio.sleep(0.02)


async def check_refusal(shell: Shell, *arguments: str, code: int, message: str) -> None:
    finished = await shell.run("serve", "--port", "0", *arguments, seconds=60)
    assert finished.code == code, finished.err
    assert message in finished.err
    assert "Traceback" not in finished.err
    assert finished.out == ""
    assert TOKEN not in finished.err


async def test_serve_does_not_start_without_any_secret(shell: Shell) -> None:
    del shell.settings["DOCV_WEBHOOK_SECRETS"]
    await check_refusal(shell, code=2, message="DOCV_RECORDS_TOKENS, DOCV_OPERATORS and DOCV_VIEWERS are not set")


async def test_serve_does_not_start_without_redis(shell: Shell) -> None:
    del shell.settings["DOCV_REDIS_URL"]
    await check_refusal(shell, code=2, message="DOCV_REDIS_URL is not set")


async def test_serve_does_not_start_when_a_secret_is_too_short(shell: Shell) -> None:
    shell.settings["DOCV_INTAKE_TOKENS"] = "too-short"
    await check_refusal(
        shell, code=2, message="DOCV_INTAKE_TOKENS: each token or password must have at least 16 characters"
    )


async def test_an_unencrypted_connection_to_another_machine_is_logged(shell: Shell) -> None:
    shell.settings["DOCV_S3_ENDPOINT"] = "http://s3.example.com"
    process = await shell.start("serve", "--port", "0")
    assert process.stdout
    await asyncio.wait_for(process.stdout.readline(), 60)
    process.terminate()
    finished = await finish(process)
    assert finished.code == 0
    warning = next(json.loads(line) for line in finished.err.splitlines() if "settings.warning" in line)
    assert warning["why"].startswith("DOCV_S3_ENDPOINT: plain http")
    shell.settings["DOCV_STRICT"] = "true"
    await check_refusal(shell, code=2, message="use https, or remove DOCV_STRICT")


async def test_serve_reports_that_redis_does_not_answer(shell: Shell) -> None:
    shell.settings["DOCV_REDIS_URL"] = "redis://127.0.0.1:1/0"
    await check_refusal(shell, code=3, message="Redis does not answer")


async def test_serve_reports_a_missing_bucket(shell: Shell, s3: S3) -> None:
    shell.settings |= {"DOCV_ARCHIVE_URL": "s3://no-such-bucket", "DOCV_S3_ENDPOINT": s3.endpoint}
    await check_refusal(shell, code=3, message="there is no such bucket")


async def test_serve_reports_an_address_in_use(shell: Shell) -> None:
    listener = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = str(listener.sockets[0].getsockname()[1])
    try:
        await check_refusal(shell, "--port", port, code=3, message=f"cannot listen on 127.0.0.1:{port}")
    finally:
        listener.close()
        await listener.wait_closed()


async def test_serve_warns_of_an_address_that_others_can_reach(shell: Shell) -> None:
    shell.settings["DOCV_INTAKE_TOKENS"] = INTAKE
    async with running(shell, "--host", "0.0.0.0") as (_, process):  # noqa: S104  # the warning is about this address
        process.terminate()
        finished = await finish(process)
    assert finished.code == 0
    assert "serve.open_to_network" in finished.err


async def test_serve_works_read_only_with_a_bucket_and_ends_cleanly(shell: Shell, s3: S3, eval_id: str) -> None:
    shell.settings |= {
        "DOCV_ARCHIVE_URL": f"s3://{s3.bucket}",
        "DOCV_S3_ENDPOINT": s3.endpoint,
        "DOCV_INTAKE_TOKENS": INTAKE,
        "DOCV_OPERATORS": OPERATOR,
    }
    async with running(shell, "--read-only") as (client, process):
        assert (await client.look_up(eval_id)).json["outcome"] == "missing"
        assert (await client.send("GET", "/readyz", Authorization=f"Bearer {INTAKE}")).json == {
            "redis": True,
            "archive": True,
        }
        page = await client.send("GET", "/", Authorization=basic(OPERATOR))
        assert b"read only" in page.body
        process.terminate()
        assert (await finish(process)).code == 0
