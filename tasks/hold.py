"""Let an account stand still, for a reason, until a time or until a probe finds it well again.

A hold is a fact in Redis that every process sees: the script that gives out turns reads it first.
"""

import importlib.resources
from dataclasses import dataclass

from redis.asyncio import Redis

_PREFIX = "docv:hold:"
_FIRST_PAUSE = 30_000
_LONGEST_PAUSE = 15 * 60_000
_SHORTEST_TIMED = 1_000


def hold_key(account: str) -> str:
    """Return the Redis key of an account's hold."""
    return _PREFIX + account


@dataclass(frozen=True, slots=True)
class Hold:
    """An account that stands still.

    Attributes:
        account: its name.
        reason: why, in a word or two, such as ``401`` or ``429``.
        lasting: seconds since it began.
        left: seconds until it ends, or until the next probe is sent.
        probed: whether only a successful probe, or a person, ends it.
    """

    account: str
    reason: str
    lasting: float
    left: float
    probed: bool


class Holds:
    """Places, ends and lists holds. Waits are in seconds."""

    def __init__(self, redis: "Redis") -> None:
        self._redis = redis
        self._script = redis.register_script(importlib.resources.files("tasks").joinpath("hold.lua").read_text("utf-8"))

    async def refused(self, account: str, status: int, *, probe: bool) -> float:
        """The key was refused: stand still; return the seconds until the next probe.

        Requests that were under way when the hold began change nothing; a failed probe doubles the pause,
        30 s to 15 min.
        """
        answer = await self._call(account, "refused", str(status), _FIRST_PAUSE, _LONGEST_PAUSE, int(probe))
        return answer / 1000

    async def slow_down(self, account: str, wait: float) -> float:
        """RiskOS answered 429: nobody sends for ``wait`` seconds; return how long it will be."""
        milliseconds = max(_SHORTEST_TIMED, round(wait * 1000))
        return await self._call(account, "timed", "429", milliseconds) / 1000

    async def lift(self, account: str) -> bool:
        """Let the account go on; return whether it was on hold."""
        return bool(await self._call(account, "lift"))

    async def of(self, account: str) -> Hold | None:
        """Return the hold of an account, or None."""
        async with self._redis.pipeline(transaction=True) as pipe:
            pipe.time()
            pipe.hgetall(hold_key(account))
            (seconds, micro), facts = await pipe.execute()
        if "until" not in facts:
            return None
        now = seconds + micro / 1e6
        return Hold(
            account=account,
            reason=facts["reason"],
            lasting=now - int(facts["since"]) / 1000,
            left=max(0.0, int(facts["until"]) / 1000 - now),
            probed="pause" in facts,
        )

    async def all(self) -> list[Hold]:
        """Return the holds of all accounts."""
        accounts = [key.removeprefix(_PREFIX) async for key in self._redis.scan_iter(match=_PREFIX + "*")]
        holds = [await self.of(account) for account in sorted(accounts)]
        return [hold for hold in holds if hold]

    async def _call(self, account: str, verb: str, *args: object) -> int:
        return int(await self._script(keys=[hold_key(account)], args=[verb, *map(str, args)]))
