"""Let an account, its backfill or the archive stand still: until a time, until a probe finds it well, or by hand.

A hold is a fact in Redis that every process sees: the script that grants permits reads it first.
"""

import enum
import importlib.resources
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis

from tasks.errors import ArchiveHeld

ARCHIVE = "@archive"
"""Scope of a hold of the archive; no account is called so."""
_BACKFILL = "@backfill"
_RUN = "@run:"
_PREFIX = "docv:hold:"
UNUSED_KEY = "docv:never"
"""A key that is never there; ``holds.lua`` says what for."""
_SHORTEST_TIMED = 1_000
_PROBE_LEASE = 60_000
_FOR_GOOD = 253_402_300_799_000  # the last moment of the year 9999


class Reason(enum.StrEnum):
    """Why something stands still."""

    UNAUTHORIZED = "401"
    """RiskOS does not accept the key."""
    FORBIDDEN = "403"
    """RiskOS answers 403 for every evaluation: the key may not do this, or not from this address."""
    NOT_ACTIVATED = "not_activated"
    """RiskOS grants the account 0 requests a second: a production account that is not activated yet."""
    SLOW_DOWN = "429"
    """RiskOS asks to slow down."""
    QUOTA = "quota"
    """The requests of the day are spent."""
    OUTAGE = "outage"
    """Most requests to RiskOS fail."""
    CANNOT_READ = "cannot_read"
    """The archive cannot be read."""
    CANNOT_WRITE = "cannot_write"
    """The archive cannot be written to."""
    ONLY_REFUSALS = "only_refusals"
    """RiskOS's first 200 answers for a run were all that it has no documents."""
    BY_HAND = "by_hand"
    """A person said so."""


def backfill_of(account: str) -> str:
    """Return the scope of a hold that stops an account's backfill and leaves alone what is live."""
    return account + _BACKFILL


def scope_of_run(run: str) -> str:
    """Return the scope of a hold that stops a run; the ledger keeps those, see ``run_holds``."""
    return _RUN + run


def run_of_scope(scope: str) -> str | None:
    """Return the name of the run that a hold stops; None if the scope is not a run's."""
    return scope.removeprefix(_RUN) if scope.startswith(_RUN) else None


def hold_key(scope: str) -> str:
    """Return the Redis key of a hold."""
    return _PREFIX + scope


@dataclass(frozen=True, slots=True)
class ProbeBackoff:
    """How long to wait before a probe is sent, in seconds: before the first one, and at most."""

    initial: float
    maximum: float


KEY_BACKOFF = ProbeBackoff(30.0, 15 * 60.0)
"""A key is mended by a person; each probe with a bad one is a mark against it."""
OUTAGE_BACKOFF = ProbeBackoff(5.0, 60.0)
"""A service comes back by itself; a request a minute is no burden to it."""


@dataclass(frozen=True, slots=True)
class Hold:
    """Something that stands still.

    Attributes:
        scope: an account's name, ``backfill_of`` it, ``scope_of_run``, or ``ARCHIVE``.
        reason: why.
        note: the same in a sentence.
        age: seconds since it began.
        remaining: seconds until it ends, or until the next probe is sent.
        needs_probe: whether a successful probe ends it.
    """

    scope: str
    reason: Reason
    note: str
    age: float
    remaining: float
    needs_probe: bool

    @property
    def what(self) -> str:
        """What stands still, in words."""
        if self.scope == ARCHIVE:
            return "the archive"
        if run := run_of_scope(self.scope):
            return f"run {run}"
        account = self.scope.removesuffix(_BACKFILL)
        return f"account {account}" if account == self.scope else f"the backfill of account {account}"

    @property
    def is_manual(self) -> bool:
        """Whether only a person ends it."""
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
        """Stand still until a probe succeeds; return the seconds until the next one.

        Requests that were under way when the hold began change nothing; a failed probe doubles the pause.

        Args:
            probe: whether it was the probe that failed.
        """
        first, longest = round(backoff.initial * 1000), round(backoff.maximum * 1000)
        answer = await self._call(scope, "place_until_probe", reason, note, first, longest, int(probe))
        return float(answer[0]) / 1000

    async def place_for(self, scope: str, reason: Reason, note: str, wait: float) -> float:
        """Stand still for so many seconds, at least one; return how long it will be."""
        milliseconds = max(_SHORTEST_TIMED, round(wait * 1000))
        answer = await self._call(scope, "place_for", reason, note, milliseconds)
        return float(answer[0]) / 1000

    async def place_manual(self, scope: str, note: str) -> None:
        """Stand still until a person says otherwise."""
        await self._call(scope, "place_manual", Reason.BY_HAND, note, _FOR_GOOD)

    async def enter(self, scope: str) -> Reason | None:
        """Pass where nothing stands still; return the hold's reason to the one who is its probe, else None.

        Raises:
            ArchiveHeld: it stands still.
        """
        answer, *facts = await self._call(scope, "enter", _PROBE_LEASE)
        if answer == "held":
            raise ArchiveHeld(facts[1], int(facts[0]) / 1000)
        return Reason(facts[1]) if answer == "probe" else None

    async def release_probe(self, scope: str) -> None:
        """The probe proved nothing; another one may be sent at once."""
        await self._call(scope, "release_probe")

    async def end_after_probe(self, scope: str) -> None:
        """A probe succeeded: let it go on, unless a person placed the hold."""
        await self._call(scope, "end_after_probe")

    async def end(self, scope: str) -> bool:
        """Let it go on; return whether it was on hold."""
        return bool((await self._call(scope, "end"))[0])

    async def get(self, scope: str) -> Hold | None:
        """Return the hold of a scope, or None."""
        return (await self.get_each(scope))[0]

    async def get_each(self, *scopes: str) -> list[Hold | None]:
        """Return the hold of each scope, or None, all at one moment."""
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
    return Hold(
        scope=scope,
        reason=Reason(facts["reason"]),
        note=facts.get("note", ""),
        age=now - int(facts["since"]) / 1000,
        remaining=max(0.0, int(facts["until"]) / 1000 - now),
        needs_probe="pause" in facts,
    )
