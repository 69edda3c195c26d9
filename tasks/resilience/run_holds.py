"""List the holds of runs for which RiskOS's first answers were all refusals; the ledger keeps them."""

from redis.asyncio import Redis

from tasks.ledger.refused_runs import RefusedRun, list_refused_runs
from tasks.resilience.holds import Hold, Reason, scope_of_run


async def list_run_holds(redis: "Redis") -> list[Hold]:
    """Return the holds of all runs, the oldest first."""
    return [_as_hold(each) for each in await list_refused_runs(redis)]


def _as_hold(refused: RefusedRun) -> Hold:
    return Hold(
        scope=scope_of_run(refused.run),
        reason=Reason.ONLY_REFUSALS,
        note=f"RiskOS had no documents in its first {refused.refusals} answers, such as for "
        f"{', '.join(refused.examples)}: check the environment, DOCV_API_VERSION and the workflow",
        age=refused.age,
        remaining=float("inf"),
        needs_probe=False,
    )
