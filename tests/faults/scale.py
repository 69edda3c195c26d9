"""The sizes of the fault tests: a short form for every test run, and a long one that proves the figures."""

import random
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Scale:
    """The sizes of one form.

    Attributes:
        long: whether it is the long form.
        kills: how many workers are killed at random moments.
        evaluations: how many are in flight meanwhile.
        places: how many calls to each service are followed by a kill; None means every call.
        restarts: rounds in which every worker is replaced.
        crashes: how often Redis is killed.
        down: seconds until it is restarted.
        frozen: seconds for which Redis is frozen.
        cut: seconds for which Redis cannot be reached.
        outage: seconds for which RiskOS, or the archive, fails every request.
        erasures: evaluations that are erased while a worker writes to them, for each fault and each archive.
    """

    long: bool
    kills: int
    evaluations: int
    places: int | None
    restarts: int
    crashes: int
    down: float
    frozen: float
    cut: float
    outage: float
    erasures: int

    def allows(self, seconds: float, *, most: float) -> bool:
        """Return whether something was quick enough; the short form may run anywhere, so it only prints times."""
        return not self.long or seconds < most

    def spread(self, calls: Sequence[int], dice: random.Random) -> list[int]:
        """Return the calls after which a worker is killed: all, or some that are spread evenly."""
        if self.places is None or self.places >= len(calls):
            return list(calls)
        step = len(calls) / self.places
        return sorted({calls[int((place + dice.random()) * step)] for place in range(self.places)})


SHORT = Scale(
    long=False,
    kills=5,
    evaluations=300,
    places=3,
    restarts=1,
    crashes=1,
    down=1,
    frozen=3,
    cut=3,
    outage=3,
    erasures=2,
)
LONG = Scale(
    long=True,
    kills=300,
    evaluations=20_000,
    places=None,
    restarts=10,
    crashes=3,
    down=40,
    frozen=20,
    cut=60,
    outage=60,
    erasures=125,
)
