"""A result is stored for a day, and a request under way for 90 seconds."""

import pytest
from redis.asyncio import Redis

from scripts.serve.api.idempotency import IdempotencyKey, IdempotencyStore
from scripts.serve.http.responses import HTTPError

pytestmark = pytest.mark.both_redises

ONE = IdempotencyKey("key", "body")


async def test_a_request_is_under_way_until_completed_or_abandoned(redis: Redis) -> None:
    store = IdempotencyStore(redis)
    assert await store.begin(ONE) is None
    with pytest.raises(HTTPError) as caught:
        await store.begin(ONE)
    assert caught.value.status == 409
    await store.complete(ONE, {"accepted": 3})
    assert await store.begin(ONE) == {"accepted": 3}
    await store.abandon(ONE)
    assert await store.begin(ONE) is None


async def test_another_body_is_refused_during_and_after_the_first_request(redis: Redis) -> None:
    store = IdempotencyStore(redis)
    await store.begin(ONE)
    for _ in range(2):
        with pytest.raises(HTTPError) as caught:
            await store.begin(IdempotencyKey("key", "another"))
        assert caught.value.status == 422
        await store.complete(ONE, {})


async def test_stored_results_expire(redis: Redis) -> None:
    store = IdempotencyStore(redis)
    await store.begin(ONE)
    assert await redis.ttl("docv:idempotency:key") == pytest.approx(90, abs=5)
    await store.complete(ONE, {})
    assert await redis.ttl("docv:idempotency:key") == pytest.approx(86_400, abs=60)
