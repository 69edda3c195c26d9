"""A signature is valid only for its purpose, in all processes that share a Redis."""

import pytest
from redis.asyncio import Redis

from scripts.serve.page.signer import PageSigner

pytestmark = pytest.mark.both_redises


async def test_all_processes_on_one_redis_know_each_others_signatures(redis: Redis) -> None:
    signature = await PageSigner(redis).sign("picture", "somebody")
    assert await PageSigner(redis).is_valid(signature, "picture", "somebody")


async def test_it_is_good_for_nothing_else(redis: Redis) -> None:
    signer = PageSigner(redis)
    signature = await signer.sign("picture", "somebody")
    for parts in (("picture", "somebody else"), ("action", "somebody"), ("picturesomebody",), ("picture",)):
        assert not await signer.is_valid(signature, *parts)
    assert not await signer.is_valid("é", "picture", "somebody")


async def test_a_redis_that_forgot_its_key_makes_another_one(redis: Redis) -> None:
    signer = PageSigner(redis)
    signature = await signer.sign("picture", "somebody")
    await redis.flushall()
    assert not await signer.is_valid(signature, "picture", "somebody")
    assert await signer.is_valid(await signer.sign("x"), "x")
