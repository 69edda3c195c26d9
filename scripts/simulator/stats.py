"""Counters of requests and answers, which show a test how an archiver behaved."""

from collections import Counter
from dataclasses import dataclass

from scripts.simulator.neighbour import NeighbourSnapshot
from scripts.simulator.rate import SimulatedLimit, SlidingSecond

_MOST_EVALUATIONS = 1_000_000


@dataclass(frozen=True, slots=True)
class StatsSnapshot:
    """A snapshot of the counters.

    Attributes:
        requests: all requests, including refused ones.
        granted: requests that key, rate and quota let through.
        refused_by_rate: requests beyond the rate.
        refused_by_quota: requests after the daily quota was spent.
        records: requests for records of evaluations, also counted in ``requests``.
        redirects_followed: requests to the address that only a redirect names.
        worst_second: the most requests within any second.
        worst_second_granted: the most granted requests within any second.
        by_status: responses by HTTP status.
        by_evaluation: requests by evaluation ID, for the first million of them.
        neighbour: counters of the other client with the same key, or None.
    """

    requests: int
    granted: int
    refused_by_rate: int
    refused_by_quota: int
    records: int
    redirects_followed: int
    worst_second: int
    worst_second_granted: int
    by_status: dict[int, int]
    by_evaluation: dict[str, int]
    neighbour: NeighbourSnapshot | None = None


class SimulatorStats:
    """Counts requests and answers. Every ``now`` is in seconds of a monotonic clock."""

    def __init__(self) -> None:
        self._arrivals = SlidingSecond()
        self._grants = SlidingSecond()
        self._refused: Counter[SimulatedLimit] = Counter()
        self._redirects_followed = 0
        self._records = 0
        self._by_status: Counter[int] = Counter()
        self._by_evaluation: Counter[str] = Counter()

    def count_request(self, eval_id: str | None, now: float) -> None:
        """Count a request; pass None as ``eval_id`` if it is invalid."""
        self._arrivals.add(now)
        if eval_id and (eval_id in self._by_evaluation or len(self._by_evaluation) < _MOST_EVALUATIONS):
            self._by_evaluation[eval_id] += 1

    def count_record(self, now: float) -> None:
        """Count a request for the record of an evaluation."""
        self._arrivals.add(now)
        self._records += 1

    def count_granted(self, now: float) -> None:
        """Count a granted request."""
        self._grants.add(now)

    def count_refused(self, limit: SimulatedLimit) -> None:
        """Count a request that a limit refused."""
        self._refused[limit] += 1

    def count_status(self, status: int) -> None:
        """Count a response."""
        self._by_status[status] += 1

    def count_redirect(self) -> None:
        """Count a request that followed a redirect."""
        self._redirects_followed += 1

    def snapshot(self, eval_id: str | None = None) -> StatsSnapshot:
        """Return the counters as they are now.

        Args:
            eval_id: include only the requests of this evaluation; None includes those of all.
        """
        mine = {eval_id: self._by_evaluation[eval_id]} if eval_id else dict(self._by_evaluation)
        return StatsSnapshot(
            requests=self._arrivals.total,
            granted=self._grants.total,
            refused_by_rate=self._refused[SimulatedLimit.RATE],
            refused_by_quota=self._refused[SimulatedLimit.QUOTA],
            records=self._records,
            redirects_followed=self._redirects_followed,
            worst_second=self._arrivals.worst,
            worst_second_granted=self._grants.worst,
            by_status=dict(sorted(self._by_status.items())),
            by_evaluation=mine,
        )
