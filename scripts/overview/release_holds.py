"""End a hold as a person does, whoever placed it."""

from collections.abc import Collection

from redis.asyncio import Redis

from tasks.model.account import DEFAULT_ACCOUNT
from tasks.resilience.circuit_breaker import CircuitBreaker
from tasks.resilience.holds import Hold, Holds


async def end_holds(redis: "Redis", scopes: Collection[str] | None = None) -> list[Hold]:
    """End every hold, or those of some scopes; return those that there were."""
    found = [hold for hold in await Holds(redis).list_all() if scopes is None or hold.scope in scopes]
    return [hold for hold in found if await end_hold(redis, hold.scope)]


async def end_hold(redis: "Redis", scope: str) -> bool:
    """End the hold of a scope; return whether there was one."""
    holds = Holds(redis)
    ended = await holds.end(scope)
    if ended:
        # What failed before a person looked says nothing about what happens now.
        await CircuitBreaker(redis, DEFAULT_ACCOUNT, holds).reset(scope)
    return ended
