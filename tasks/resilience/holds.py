"""Put an account, its backfill or the archive on hold: until a time, until a probe succeeds, or until a person ends it.

Holds are in Redis, so they apply to every process. The script that grants permits checks them first.
"""

import enum
import importlib.resources
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis

from tasks.errors import ArchiveHeld
from tasks.ledger.serialization import read_count
from tasks.model.members import read_member

UNEXPECTED = ":unexpected"
"""Suffix of the window of unexpected answers; each scope has another window for its other failures."""
ARCHIVE = "@archive"
"""Scope of a hold of the archive; no account can have this name."""
_BACKFILL = "@backfill"
_RUN = "@run:"
_PREFIX = "docv:hold:"
UNUSED_KEY = "docv:never"
"""A key that never exists; ``holds.lua`` says why scripts delete it."""
_CLOCK_STEP_SECONDS = 5.0
_SHORTEST_TIMED = 1_000
_PROBE_LEASE = 60_000
_NO_END = 253_402_300_799_000  # the last moment of the year 9999


class Reason(enum.StrEnum):
    """Why something is on hold."""

    UNAUTHORIZED = "401"
    """RiskOS does not accept the key."""
    FORBIDDEN = "403"
    """RiskOS answers 403 for every evaluation: the key lacks the permission, or this address is not allowed."""
    NOT_ACTIVATED = "not_activated"
    """RiskOS grants the account 0 requests per second: a production account that is not activated yet."""
    SLOW_DOWN = "429"
    """RiskOS asks to slow down."""
    QUOTA = "quota"
    """The requests of the day are used up."""
    OUTAGE = "outage"
    """Most requests to RiskOS fail."""
    CANNOT_READ = "cannot_read"
    """The archive cannot be read."""
    CANNOT_WRITE = "cannot_write"
    """The archive cannot be written to."""
    ONLY_REFUSALS = "only_refusals"
    """RiskOS had no documents in its first 200 answers for a run."""
    BY_HAND = "by_hand"
    """A person placed the hold."""


def backfill_of(account: str) -> str:
    """Return the scope of a hold of an account's backfill; live evaluations of the account continue."""
    return account + _BACKFILL


def scope_of_run(run: str) -> str:
    """Return the scope of a hold of a run; the ledger keeps these holds, see ``run_holds``."""
    return _RUN + run


def run_of_scope(scope: str) -> str | None:
    """Return the name of the run of a scope; None if the scope is not a run's."""
    return scope.removeprefix(_RUN) if scope.startswith(_RUN) else None


def describe_scope(scope: str) -> str:
    """Return what is on hold in a scope, in words."""
    if scope == ARCHIVE:
        return "the archive"
    if run := run_of_scope(scope):
        return f"run {run}"
    account = scope.removesuffix(_BACKFILL)
    return f"account {account}" if account == scope else f"the backfill of account {account}"


def hold_key(scope: str) -> str:
    """Return the Redis key of a hold."""
    return _PREFIX + scope


@dataclass(frozen=True, slots=True)
class ProbeBackoff:
    """Seconds to wait before a probe is sent: before the first one, and at most."""

    initial: float
    maximum: float


KEY_BACKOFF = ProbeBackoff(30.0, 15 * 60.0)
"""A person has to fix a key, and each probe with a bad one counts against it."""
OUTAGE_BACKOFF = ProbeBackoff(5.0, 60.0)
"""A service recovers without us, and one request per minute is no burden to it."""


@dataclass(frozen=True, slots=True)
class Hold:
    """A hold.

    Attributes:
        scope: an account's name, ``backfill_of`` it, ``scope_of_run``, or ``ARCHIVE``.
        reason: why it was placed.
        note: the reason in a sentence.
        age: seconds since it began.
        remaining: seconds until it ends, or until the next probe is sent.
        needs_probe: whether a successful probe ends it.
        by: the person who placed it; empty if no person did.
    """

    scope: str
    reason: Reason
    note: str
    age: float
    remaining: float
    needs_probe: bool
    by: str = ""

    @property
    def what(self) -> str:
        """What is on hold, in words."""
        return describe_scope(self.scope)

    @property
    def is_manual(self) -> bool:
        """Whether only a person can end it."""
        return self.reason in {Reason.BY_HAND, Reason.ONLY_REFUSALS}


class Holds:
    """Places, ends and lists holds. Waits are in seconds."""

    def __init__(self, redis: "Redis") -> None:
        self._redis = redis
        self._script = redis.register_script(
            importlib.resources.files("tasks.resilience").joinpath("holds.lua").read_text("utf-8")
        )

    async def place_until_probe(
        self, scope: str, reason: Reason, note: str, backoff: ProbeBackoff, *, probe: bool
    ) -> float:
        """Place a hold until a probe succeeds; return the seconds until the next probe.

        Requests that were in flight when the hold began change nothing; a failed probe doubles the pause.

        Args:
            probe: whether the failed request was the probe.
        """
        first, longest = round(backoff.initial * 1000), round(backoff.maximum * 1000)
        answer = await self._call(scope, "place_until_probe", reason, note, first, longest, int(probe))
        return float(answer[0]) / 1000

    async def place_for(self, scope: str, reason: Reason, note: str, wait: float) -> float:
        """Place a hold for some seconds, at least one; return the seconds until it ends."""
        milliseconds = max(_SHORTEST_TIMED, round(wait * 1000))
        answer = await self._call(scope, "place_for", reason, note, milliseconds)
        return float(answer[0]) / 1000

    async def place_manual(self, scope: str, note: str, *, by: str = "", replace: bool = False) -> bool:
        """Place a hold until a person ends it; return False if there is a manual hold already.

        Args:
            by: the person who places it.
            replace: replace a manual hold.
        """
        answer = await self._call(scope, "place_manual", Reason.BY_HAND, note, _NO_END, by, int(replace))
        return bool(answer[0])

    async def enter(self, scope: str) -> Reason | None:
        """Pass if there is no hold; return the reason of the hold if the caller is its probe, else None.

        Raises:
            ArchiveHeld: there is a hold.
        """
        answer, *facts = await self._call(scope, "enter", _PROBE_LEASE)
        if answer == "held":
            raise ArchiveHeld(facts[1], int(facts[0]) / 1000)
        return read_member(Reason, facts[1]) if answer == "probe" else None

    async def release_probe(self, scope: str) -> None:
        """Record that the probe proved nothing; another one may be sent at once."""
        await self._call(scope, "release_probe")

    async def end_after_probe(self, scope: str) -> None:
        """End a hold whose probe succeeded, unless it is manual."""
        await self._call(scope, "end_after_probe")

    async def end(self, scope: str) -> bool:
        """End a hold; return whether there was one."""
        return bool((await self._call(scope, "end"))[0])

    async def get(self, scope: str) -> Hold | None:
        """Return the hold of a scope; None if it has no hold."""
        return (await self.get_each(scope))[0]

    async def get_each(self, *scopes: str) -> list[Hold | None]:
        """Return the hold of each scope, or None, all as of one moment."""
        async with self._redis.pipeline(transaction=True) as pipe:
            pipe.time()
            for scope in scopes:
                pipe.hgetall(hold_key(scope))
            (seconds, micro), *found = await pipe.execute()
        now = seconds + micro / 1e6
        return [_hold(scope, facts, now) for scope, facts in zip(scopes, found, strict=True)]

    async def list_all(self) -> list[Hold]:
        """Return all holds."""
        scopes = sorted([key.removeprefix(_PREFIX) async for key in self._redis.scan_iter(match=_PREFIX + "*")])
        return [hold for hold in await self.get_each(*scopes) if hold]

    async def _call(self, scope: str, verb: str, *args: object) -> list[Any]:
        answer: list[Any] = await self._script(keys=[hold_key(scope), UNUSED_KEY], args=[verb, *map(str, args)])
        return answer


def _hold(scope: str, facts: dict[str, str], now: float) -> Hold | None:
    if "until" not in facts:
        return None
    remaining, length = read_count(facts["until"]) / 1000 - now, read_count(facts.get("length")) / 1000
    if length and remaining > length + _CLOCK_STEP_SECONDS:
        remaining = 0.0  # Redis's clock was set back; see holds.lua
    return Hold(
        scope=scope,
        reason=read_member(Reason, facts.get("reason", "unknown")),
        note=facts.get("note", ""),
        age=max(0.0, now - (read_count(facts.get("since")) / 1000 or now)),
        remaining=max(0.0, remaining),
        needs_probe="pause" in facts,
        by=facts.get("by", ""),
    )


def failures_key(window: str) -> str:
    """Return the key of the latest successes and failures in a window; ``CircuitBreaker`` writes it."""
    return f"docv:breaker:{window}"


async def forget_failures(redis: "Redis", scope: str) -> None:
    """Forget the failures of a scope until now, because they are not evidence about later attempts."""
    await redis.delete(failures_key(scope), failures_key(scope + UNEXPECTED))
