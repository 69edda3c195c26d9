"""Health checks report whether the process is alive and ready, and test each service at most once per second."""

import asyncio
import gc
from pathlib import Path
from typing import Any

import pytest

from scripts.serve.api.health import HealthApi
from tests.faults.redis_server import RedisServer
from tests.scripts.serve.conftest import INTAKE, Client, running_client, settings_for
from worker.config.settings import Settings

ANYTHING: Any = None


class Service:
    """A service that answers, fails or hangs."""

    def __init__(self) -> None:
        self.calls = 0
        self.is_healthy = True
        self.hangs = False

    async def answer(self) -> None:
        self.calls += 1
        if self.hangs:
            await asyncio.Event().wait()
        if not self.is_healthy:
            raise OSError


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


async def test_a_service_is_checked_at_most_once_per_second() -> None:
    service, clock = Service(), Clock()
    health = HealthApi({"service": service.answer}, clock=clock)
    answers = await asyncio.gather(*(health.ready(ANYTHING) for _ in range(20)))
    assert ({answer.status for answer in answers}, service.calls) == ({200}, 1)
    service.is_healthy = False
    clock.now = 0.9
    assert (await health.ready(ANYTHING)).status == 200
    clock.now = 1.0
    assert (await health.ready(ANYTHING)).status == 503
    assert service.calls == 2


async def test_a_service_is_not_ready_and_not_checked_twice_when_it_does_not_answer() -> None:
    service, clock = Service(), Clock()
    service.hangs = True
    health = HealthApi({"service": service.answer}, seconds=0.01, clock=clock)
    for clock.now in (0.0, 1.0, 2.0):
        assert (await health.ready(ANYTHING)).status == 503
    assert service.calls == 1
    await health.close()


async def test_close_cancels_the_check_of_a_cancelled_request(caplog: pytest.LogCaptureFixture) -> None:
    ended = asyncio.Event()

    async def check() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
            raise OSError

    health = HealthApi({"service": check})
    request = asyncio.create_task(health.ready(ANYTHING))
    await asyncio.sleep(0.01)
    request.cancel()
    await asyncio.wait([request])
    await health.close()
    gc.collect()
    assert (ended.is_set(), caplog.records) == (True, [])


async def test_readyz_lists_each_service_and_livez_needs_no_login(client: Client) -> None:
    ready = await client.send("GET", "/readyz", Authorization=f"Bearer {INTAKE}")
    assert (ready.status, ready.json) == (200, {"redis": True, "archive": True})
    assert (await client.send("GET", "/livez")).status == 200


async def test_readyz_names_the_service_that_does_not_answer(tmp_path: Path) -> None:
    server = RedisServer(tmp_path / "own-redis")
    await server.start()
    try:
        async with running_client(settings_for(server.url, tmp_path)) as client:
            await server.kill()
            ready = await client.send("GET", "/readyz", Authorization=f"Bearer {INTAKE}")
            assert (ready.status, ready.json) == (503, {"redis": False, "archive": True})
            assert (await client.send("GET", "/livez")).status == 200
    finally:
        await server.kill()


async def test_readyz_reports_a_missing_archive(settings: Settings, tmp_path: Path) -> None:
    async with running_client(settings) as client:
        (tmp_path / "archive").rmdir()
        (tmp_path / "archive").write_text("a file")
        ready = await client.send("GET", "/readyz", Authorization=f"Bearer {INTAKE}")
    assert (ready.status, ready.json) == (503, {"redis": True, "archive": False})
