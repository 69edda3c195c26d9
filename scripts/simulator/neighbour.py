"""Another client with the same key, such as the customer's own onboarding: it shares rate and daily quota."""

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from scripts.simulator.options import SimulatorOptions
from scripts.simulator.rate import SimulatedLimit, SimulatedLimiter

_EPOCH_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class NeighbourSnapshot:
    """A snapshot of the neighbour's counters.

    Attributes:
        requests: its requests, including refused ones.
        refused_by_quota: its requests after the daily quota was spent.
        refused_after: for each of its requests that the rate refused, the seconds since its own rate last changed.
        rates: its rates until now, each as requests per second and the seconds for which it lasted.
    """

    requests: int
    refused_by_quota: int
    refused_after: list[float]
    rates: list[tuple[int, float]]


class Neighbour:
    """Send evenly, at a new random rate every 30 s. The same seed gives the same rates.

    Args:
        limiter: grants requests.
        least, most: requests per second.
        seed: seed of its rates.
        now: seconds of a monotonic clock.
    """

    def __init__(self, limiter: SimulatedLimiter, least: int, most: int, *, seed: int = 1, now: float) -> None:
        self._limiter, self._least, self._most = limiter, least, most
        self._random = random.Random(seed)  # noqa: S311  # not used for secrets
        self._ended: list[tuple[int, float]] = []
        self._requests = self._refused_by_quota = 0
        self._refused_after: list[float] = []
        self._rate, self._since = self._random.randint(least, most), now

    def send(self, options: SimulatorOptions, now: float) -> float:
        """Send a request if the rate is not 0; return when the next one is to be sent."""
        while now >= self._since + _EPOCH_SECONDS:
            self._ended.append((self._rate, _EPOCH_SECONDS))
            self._rate, self._since = self._random.randint(self._least, self._most), self._since + _EPOCH_SECONDS
        change = self._since + _EPOCH_SECONDS
        if not self._rate:
            return change
        self._requests += 1
        refusal = self._limiter.admit(options, now)
        if refusal and refusal.limit is SimulatedLimit.QUOTA:
            self._refused_by_quota += 1
        elif refusal:
            self._refused_after.append(round(now - self._since, 3))
        return min(now + 1 / self._rate, change)

    def snapshot(self, now: float) -> NeighbourSnapshot:
        """Return the counters as they are now."""
        rates = [*self._ended, (self._rate, now - self._since)]
        return NeighbourSnapshot(self._requests, self._refused_by_quota, list(self._refused_after), rates)

    async def run(self, get_options: Callable[[], SimulatorOptions]) -> None:
        """Send requests until cancelled; the options may change meanwhile."""
        due = time.monotonic()
        while True:
            due = self.send(get_options(), due)
            await asyncio.sleep(due - time.monotonic())
