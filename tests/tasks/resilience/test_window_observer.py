"""Workers share a key with a neighbour in simulated time. No test sleeps, and no result depends on the machine.

The scripts run on fakeredis with the simulation's clock. RiskOS grants 10 requests per window of a second.
"""

import heapq
import itertools
import math
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import pytest
from fakeredis import FakeAsyncRedis, FakeServer
from pydantic import SecretStr

from tasks.model.account import Account, Allowance
from tasks.model.job import Queue
from tasks.resilience.adaptive_rate import AdaptiveRate
from tasks.resilience.holds import Holds
from tasks.resilience.rate_headers import RateLimitHeaders, RateLimitWindow
from tasks.resilience.rate_limiter import Granted, Held, RateLimitScript, Wait

LIMIT, LEAVE = 10, 1
EPOCH = 30.0
"""Seconds until the neighbour changes its rate."""
START = 1_800_000_000.0
Event = Callable[[], Awaitable[None]]


@dataclass
class World:
    """The simulated clock and its scheduled events."""

    now: float = START
    _events: list[tuple[float, int, Event]] = field(default_factory=list)
    _number: itertools.count = field(default_factory=itertools.count)  # type: ignore[type-arg]

    def after(self, seconds: float, event: Event) -> None:
        """Schedule an event in some seconds."""
        heapq.heappush(self._events, (self.now + seconds, next(self._number), event))

    async def run(self, seconds: float) -> None:
        """Advance the clock over the next events."""
        end = self.now + seconds
        while self._events[0][0] < end:
            self.now, _, event = heapq.heappop(self._events)
            await event()
        self.now = end


@dataclass
class SlidingWindow:
    """A sliding window, which counts the requests of the last second."""

    _granted: deque[float] = field(default_factory=deque)

    def count(self, now: float) -> int:
        """Return the requests that were granted."""
        while self._granted and self._granted[0] <= now - 1:
            self._granted.popleft()
        return len(self._granted)

    def grant(self, now: float) -> bool:
        """Grant a request if the limit of the window is not reached."""
        if self.count(now) >= LIMIT:
            return False
        self._granted.append(now)
        return True


@dataclass
class FixedWindow:
    """A fixed window of a second, not aligned with the seconds of Redis's clock."""

    _number: int = 0
    _granted: int = 0

    def count(self, now: float) -> int:
        """Return the requests that were granted."""
        number = math.floor(now - 0.37)
        if number != self._number:
            self._number, self._granted = number, 0
        return self._granted

    def grant(self, now: float) -> bool:
        """Grant a request if the limit of the window is not reached."""
        if self.count(now) >= LIMIT:
            return False
        self._granted += 1
        return True


@dataclass
class Neighbour:
    """Another client of the key that sends evenly.

    Attributes:
        rates: requests per second, each for an epoch.
        sent: number of requests.
        refused_after: for each refused request, the seconds since the rate changed.
    """

    world: World
    window: SlidingWindow | FixedWindow
    rates: list[int]
    sent: int = 0
    refused_after: list[float] = field(default_factory=list)

    async def send(self) -> None:
        """Send a request, and schedule the next one."""
        epoch, since = divmod(self.world.now - START, EPOCH)
        rate = self.rates[int(epoch)]
        if not rate:
            self.world.after(EPOCH - since, self.send)
            return
        self.sent += 1
        if not self.window.grant(self.world.now):
            self.refused_after.append(since)
        self.world.after(min(1 / rate, EPOCH - since + 0.001), self.send)


@dataclass
class Worker:
    """A process with endless work. A request takes 20 to 40 ms to reach RiskOS, and its response 150 to 250 ms.

    Attributes:
        granted, refused: number of requests.
    """

    world: World
    window: SlidingWindow | FixedWindow
    redis: FakeAsyncRedis
    allowance: Allowance
    random: random.Random
    granted: int = 0
    refused: int = 0
    _held: tuple[float, float] = (0.0, 0.0)

    def __post_init__(self) -> None:
        self.script, self.pace = (
            RateLimitScript(self.redis),
            AdaptiveRate(self.redis, "default", self.allowance, Holds(self.redis)),
        )
        self.account = Account("default", "sandbox", "https://riskos.example", SecretStr("key"), None, self.allowance)

    async def acquire(self) -> None:
        match await self.script.acquire(self.account, Queue.LIVE, "acquire"):
            case Granted(seconds):
                granted_at = self.world.now

                async def use() -> None:
                    noticed_at, until = self._held
                    if noticed_at > granted_at and until > self.world.now:
                        await self.script.release(self.account, 0.0)
                    else:
                        self.send()
                    await self.acquire()

                self.world.after(seconds, use)
            case Wait(seconds) | Held(_, seconds):
                self.world.after(seconds + 0.001, self.acquire)

    def send(self) -> None:
        sent_at = self.world.now

        async def arrive() -> None:
            is_granted = self.window.grant(self.world.now)
            left = LIMIT - self.window.count(self.world.now)
            self.granted, self.refused = self.granted + is_granted, self.refused + (not is_granted)
            headers = RateLimitHeaders((RateLimitWindow(1.0, LIMIT, left),))

            async def answer() -> None:
                now = self.world.now
                if is_granted:
                    self.pace.on_success()
                    wait = await self.pace.on_headers(headers, sent_at, now)
                else:
                    wait = await self.pace.on_rate_limited(headers, sent_at, now, probe=False)
                self._held = now, now + wait

            self.world.after(self.random.uniform(0.15, 0.25), answer)

        self.world.after(self.random.uniform(0.02, 0.04), arrive)


@dataclass(frozen=True)
class Sharing:
    """The result of a simulation.

    Attributes:
        used: the fraction that the workers used of the limit, less the neighbour's requests and its reserve.
        refused: the fraction of the neighbour's requests that were refused.
        refused_after: for each refused request, the seconds since the neighbour changed its rate.
    """

    used: float
    refused: float
    refused_after: list[float]


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    world = World()
    monkeypatch.setattr(time, "time", lambda: world.now)
    return world


async def share(world: World, window: SlidingWindow | FixedWindow, rates: list[int]) -> Sharing:
    """Let two workers share the key with a neighbour of these rates."""
    neighbour, allowance = Neighbour(world, window, rates), Allowance(rate=LIMIT, leave_rate=LEAVE)
    async with FakeAsyncRedis(server=FakeServer(), decode_responses=True) as redis:
        randoms = (random.Random(seed) for seed in range(2))  # noqa: S311  # not a secret
        workers = [Worker(world, window, redis, allowance, each) for each in randoms]
        for each in (neighbour.send, *(worker.acquire for worker in workers)):
            world.after(0.01, each)
        await world.run(len(rates) * EPOCH)
    capacity = sum(max(0.0, LIMIT - each - LEAVE) for each in rates) * EPOCH
    return Sharing(
        used=sum(each.granted for each in workers) / capacity,
        refused=len(neighbour.refused_after) / max(1, neighbour.sent),
        refused_after=neighbour.refused_after,
    )


@pytest.mark.parametrize("window", [SlidingWindow, FixedWindow])
async def test_workers_use_the_rate_that_a_neighbour_leaves(
    world: World, window: Callable[[], SlidingWindow | FixedWindow]
) -> None:
    found = await share(world, window(), [2, 7, 1, 5])
    assert found.used >= 0.85
    assert found.refused <= 0.015
    assert max(found.refused_after, default=0.0) <= 3
