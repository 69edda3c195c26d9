"""`rate` shows and changes the rate of an account."""

import json
from pathlib import Path

import pytest
from redis.asyncio import Redis

from tasks.model.account import Allowance
from tasks.resilience.adaptive_rate import AdaptiveRate, RateStatus
from tasks.resilience.holds import Holds
from tests.commands import Shell

PACE = "docv:pace:default"


@pytest.fixture
def shell(redis: Redis, redis_url: str, tmp_path: Path) -> Shell:
    return Shell(tmp_path, {"DOCV_REDIS_URL": redis_url, "DOCV_RATE": "12"})


async def test_rate_sets_the_rate_and_restores_the_one_from_the_settings(shell: Shell, redis: Redis) -> None:
    assert (await shell.run("rate")).out == "12 requests per second, from the settings; 0 over the last minute\n"

    finished = await shell.run("rate", "2.5")

    assert (finished.code, finished.out, finished.err) == (
        0,
        "2.5 requests per second, set by hand; 0 over the last minute\n",
        "",
    )
    assert (await AdaptiveRate(redis, "default", Allowance(rate=12.0), Holds(redis)).get_status()).effective == 2.5
    assert "2.5" in (await shell.run("status")).out
    await redis.hset(PACE, mapping={"granted": 1, "granted_until": 10**15})
    slowed = (await shell.run("rate")).out
    zero = "; 0 over the last minute\n"
    assert slowed == "1 request per second, slowed down by RiskOS, 2.5 configured, set by hand" + zero
    back = await shell.run("rate", "--from-settings")
    assert back.out == "1 request per second, slowed down by RiskOS, 12 configured, from the settings" + zero


async def test_json_shows_the_rate_and_whether_it_is_manual(shell: Shell, redis: Redis) -> None:
    seconds, _ = await redis.time()
    await redis.hset("docv:quota:default", mapping={"since": seconds * 1000, "used": 7})
    settings = {"configured": 12.0, "effective": 12.0, "manual": False, "used_today": 7, "observed": 0.0}
    settings |= {"granted": None, "neighbour": None}
    assert json.loads((await shell.run("rate", "--json")).out) == settings
    manual = settings | {"configured": 10_000.0, "effective": 10_000.0, "manual": True}
    assert json.loads((await shell.run("rate", "10000", "--json")).out) == manual
    assert json.loads((await shell.run("rate", "--json")).out) == manual
    assert json.loads((await shell.run("rate", "--from-settings", "--json")).out) == settings


@pytest.mark.parametrize(
    "arguments",
    [("0",), ("nan",), ("-1",), ("--", "-1"), ("inf",), ("10001",), ("fast",), ("5", "6"), ("5", "--from-settings")],
    ids=" ".join,
)
async def test_an_invalid_rate_changes_nothing(shell: Shell, redis: Redis, arguments: tuple[str, ...]) -> None:
    adaptive_rate = AdaptiveRate(redis, "default", Allowance(rate=12.0), Holds(redis))
    await adaptive_rate.set_rate(3.0)
    finished = await shell.run("rate", *arguments)
    assert (finished.code, finished.out) == (2, "")
    assert "Usage: " in finished.err
    assert "Traceback" not in finished.err
    assert await adaptive_rate.get_status() == RateStatus(configured=3, effective=3, manual=True, used_today=0)
