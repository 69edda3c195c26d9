"""A signature is valid only for its purpose, in all processes that share a Redis."""

import pytest
from redis.asyncio import Redis

from scripts.serve.page.signer import PageSigner

pytestmark = pytest.mark.both_redises


async def test_a_signature_is_valid_in_every_process_of_one_redis(redis: Redis) -> None:
    signature = await PageSigner(redis).sign("picture", "operator")
    assert await PageSigner(redis).is_valid(signature, "picture", "operator")


async def test_a_signature_is_valid_for_its_own_parts_only(redis: Redis) -> None:
    signer = PageSigner(redis)
    signature = await signer.sign("picture", "operator")
    for parts in (("picture", "viewer"), ("action", "operator"), ("pictureoperator",), ("picture",)):
        assert not await signer.is_valid(signature, *parts)
    assert not await signer.is_valid("é", "picture", "operator")


async def test_a_new_key_is_created_when_redis_has_lost_the_old_one(redis: Redis) -> None:
    signer = PageSigner(redis)
    signature = await signer.sign("picture", "operator")
    await redis.flushall()
    assert not await signer.is_valid(signature, "picture", "operator")
    assert await signer.is_valid(await signer.sign("x"), "x")
