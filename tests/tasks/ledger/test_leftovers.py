"""Objects of erased evaluations are remembered until they are removed, even if Redis fails in the meantime."""

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from tasks.ledger.leftovers import Leftovers

pytestmark = pytest.mark.both_redises


async def test_objects_are_recorded_once_and_forgotten_when_they_are_removed(redis: Redis) -> None:
    leftovers = Leftovers(redis)
    await leftovers.flush()
    leftovers.add(["b", "a"])
    assert await leftovers.count() == 0
    await leftovers.flush()
    leftovers.add(["b", "c"])
    await leftovers.flush()
    assert (await leftovers.count(), await leftovers.list_all()) == (3, ["a", "b", "c"])
    await leftovers.remove(["a", "c"])
    await leftovers.remove([])
    assert await leftovers.list_all() == ["b"]


async def test_objects_that_redis_refused_are_written_by_the_next_flush(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    leftovers = Leftovers(redis)
    leftovers.add(["a"])

    async def refuse(*_: object) -> None:
        raise RedisError

    with monkeypatch.context() as context:
        context.setattr(redis, "sadd", refuse)
        with pytest.raises(RedisError):
            await leftovers.flush()
    await leftovers.flush()
    assert await leftovers.list_all() == ["a"]
