"""Wrong secrets are answered with 429 beyond ten per second. Requests with a valid secret or none never are."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from scripts.serve.auth.wrong_secrets import WrongSecretLimiter
from tests.counting import samples
from tests.scripts.serve.conftest import (
    INTAKE,
    MONITORING,
    OPERATOR,
    PAIR,
    TOKEN,
    VIEWER,
    Client,
    basic,
    event,
    running_client,
)
from worker.config.settings import Settings

WRONG = "Bearer a-wrong-token-of-16"
ROUTES = [
    *(("GET", "/"), ("GET", "/metrics"), ("POST", "/page/drop"), ("GET", "/is/not/there")),
    *(("POST", "/webhooks/riskos"), ("POST", "/evaluations"), ("GET", "/evaluations/x")),
]


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_limiter_admits_ten_at_once_and_then_ten_per_second() -> None:
    clock = Clock()
    limiter = WrongSecretLimiter(10, clock)
    assert [limiter.admit() for _ in range(12)] == [True] * 10 + [False] * 2
    clock.now += 0.5
    assert [limiter.admit() for _ in range(6)] == [True] * 5 + [False]
    clock.now += 3_600
    assert sum(limiter.admit() for _ in range(100)) == 10


@pytest.fixture
async def flooded(client: Client) -> AsyncIterator[Client]:
    """Yield the client of a server that receives wrong secrets for the duration of the test."""

    async def guess() -> None:
        while True:
            await asyncio.gather(*(client.send("GET", "/", Authorization=WRONG) for _ in range(20)))

    guessing = asyncio.create_task(guess())
    await asyncio.sleep(0.3)
    yield client
    guessing.cancel()
    await asyncio.gather(guessing, return_exceptions=True)


@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_many_wrong_secrets_are_answered_with_429_on_every_route(client: Client, method: str, path: str) -> None:
    answers = [await client.send(method, path, Authorization=WRONG) for _ in range(30)]
    statuses = [answer.status for answer in answers]
    assert set(statuses) == {401, 429}
    assert statuses[:10] == [401] * 10
    refused = next(answer for answer in answers if answer.status == 429)
    assert refused.headers["Retry-After"] == "1"
    assert refused.json == {"error": "too many requests with a wrong secret"}
    counted = samples(await client.metrics())
    for status in (401, 429):
        assert counted[f'docv_http_wrong_secrets_total{{status="{status}"}}'] == statuses.count(status)


async def test_a_valid_secret_is_never_answered_with_429(flooded: Client, eval_id: str) -> None:
    for _ in range(20):
        assert (await flooded.deliver(event())).status == 200
        assert (await flooded.deliver(event(), Authorization=basic(PAIR))).status == 200
        assert (await flooded.submit({"eval_ids": [eval_id]})).status == 202
        for authorization in (basic(OPERATOR), basic(VIEWER), f"Bearer {MONITORING}", f"Bearer {INTAKE}"):
            assert (await flooded.send("GET", "/metrics", Authorization=authorization)).status == 200


async def test_a_browser_is_asked_for_a_password_while_an_attacker_guesses(flooded: Client) -> None:
    for _ in range(20):
        answer = await flooded.send("GET", "/")
        assert answer.status == 401
        assert answer.headers["WWW-Authenticate"].startswith("Basic")
        assert (await flooded.send("GET", "/livez")).status == 200


async def test_each_process_counts_wrong_secrets_separately(settings: Settings) -> None:
    async with running_client(settings) as one, running_client(settings) as other:
        for _ in range(15):
            await one.send("GET", "/", Authorization=WRONG)
        assert (await other.send("GET", "/", Authorization=WRONG)).status == 401
        assert TOKEN not in (await one.metrics())
