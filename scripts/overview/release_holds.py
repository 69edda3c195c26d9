"""End holds for an operator, whether a worker or an operator placed them."""

from collections.abc import Collection

from redis.asyncio import Redis

from tasks.ledger.ledger import Ledger
from tasks.resilience.holds import Hold, Holds, forget_failures, run_of_scope
from tasks.resilience.run_holds import list_run_holds


async def end_holds(redis: "Redis", scopes: Collection[str] | None = None) -> list[Hold]:
    """End every hold except those of runs, or only those of some scopes; return the ended holds."""
    found = [hold for hold in await Holds(redis).list_all() if scopes is None or hold.scope in scopes]
    return [hold for hold in found if await end_hold(redis, hold.scope)]


async def find_hold(redis: "Redis", scope: str) -> Hold | None:
    """Return the hold of a scope, which may be a run."""
    if run_of_scope(scope) is None:
        return await Holds(redis).get(scope)
    return next((hold for hold in await list_run_holds(redis) if hold.scope == scope), None)


async def end_hold(redis: "Redis", scope: str) -> bool:
    """End the hold of a scope; return whether there was one. The hold of a run ends for the rest of the run."""
    if run := run_of_scope(scope):
        return await Ledger(redis).runs.accept_refusals(run)
    ended = await Holds(redis).end(scope)
    if ended:
        # Failures before an operator intervened say nothing about the state now.
        await forget_failures(redis, scope)
    return ended
