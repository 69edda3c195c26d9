"""List the runs that are on hold because RiskOS had no documents in its first answers."""

from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis

from tasks.ledger.entries import KEY_PREFIX
from tasks.ledger.serialization import read_count

REFUSED_RUNS = KEY_PREFIX + "refused"
"""Key of the sorted set of these runs, by the beginning of their hold."""


@dataclass(frozen=True, slots=True)
class RefusedRun:
    """A run that is on hold because RiskOS had no documents in its first answers.

    Attributes:
        run: its name.
        age: seconds since the hold began.
        refusals: number of answers without documents.
        examples: the first three evaluations.
    """

    run: str
    age: float
    refusals: int
    examples: tuple[str, ...]


async def list_refused_runs(redis: "Redis") -> list[RefusedRun]:
    """Return the runs on hold, the oldest hold first."""
    found: Any = await redis.zrange(REFUSED_RUNS, 0, -1, withscores=True)
    if not found:
        return []
    async with redis.pipeline(transaction=False) as pipe:
        pipe.time()
        for run, _ in found:
            pipe.hmget(f"{KEY_PREFIX}run:{run}", "refusals", "refused")
        (seconds, micro), *facts = await pipe.execute()
    return [
        RefusedRun(
            run=str(run),
            age=max(0.0, seconds + micro / 1e6 - since / 1000),  # Redis's clock may have been set back
            refusals=read_count(refusals),
            examples=tuple((examples or "").split()),
        )
        for (run, since), (refusals, examples) in zip(found, facts, strict=True)
    ]


async def count_live_refusals(redis: "Redis") -> dict[str, int]:
    """Return for each account the number of consecutive live answers that were refusals without explaining evidence."""
    found: Any = await redis.hgetall(f"{KEY_PREFIX}live:refusals")
    return {str(account): read_count(count) for account, count in found.items()}
