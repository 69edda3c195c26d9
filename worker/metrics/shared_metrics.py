"""Figures of what all processes share: asked of Redis every few seconds, and never at the expense of a scrape."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping

import structlog
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

Found = Mapping[str, Mapping[tuple[str, ...], float]]
Look = Callable[[], Awaitable[Found]]
UP = "1 when Redis answers."
SHARED: dict[str, tuple[str, tuple[str, ...]]] = {
    "docv_ledger_evaluations": ("Evaluations without an outcome, by state.", ("state",)),
    "docv_held_evaluations": ("Evaluations that wait for a hold to end, by account.", ("account",)),
    "docv_queue_evaluations": ("Evaluations that wait in a queue.", ("queue",)),
    "docv_queue_oldest_seconds": ("For how long the oldest in a queue has been waiting.", ("queue",)),
    "docv_queue_workers": ("Workers that serve a queue.", ("queue",)),
    "docv_dead_letters": ("Dead letters that wait for a person.", ()),
    "docv_rejected_messages": ("Messages that did not fit the contract, and are kept.", ()),
    "docv_holds": ("1 where something stands still for this reason.", ("account", "scope", "reason")),
    "docv_rate_configured_per_second": ("Requests a second that settings, or a person, ask for.", ("account",)),
    "docv_rate_effective_per_second": ("Requests a second that are kept just now.", ("account",)),
    "docv_rate_observed_per_second": ("Requests a second over the last minute.", ("account",)),
    "docv_quota_requests": ("Requests that an account has in 24 hours; missing where there is no quota.", ("account",)),
    "docv_quota_used_requests": ("Requests of the quota's day so far.", ("account",)),
    "docv_quota_left_requests": ("Requests that are left of it.", ("account",)),
    "docv_redis_memory_bytes": ("Memory that Redis uses.", ()),
    "docv_redis_memory_max_bytes": ("Memory that Redis may use, 0 for no limit.", ()),
}
"""Every figure: what it is, and its labels."""
_FRESH_SECONDS = 5.0
_LOOK_SECONDS = 1.0
_log = structlog.get_logger("docv.metrics")


class SharedMetrics(Collector):
    """The figures as they were seen last.

    Args:
        look: asks Redis for all of them.
        clock: seconds of a clock that never goes back.
        patience: seconds after which Redis counts as away.
    """

    def __init__(
        self, look: Look, clock: Callable[[], float] = time.monotonic, patience: float = _LOOK_SECONDS
    ) -> None:
        self._look, self._clock, self._patience = look, clock, patience
        self._one_at_a_time = asyncio.Lock()
        self._looked = float("-inf")
        self._found: Found | None = None

    async def refresh(self) -> None:
        """Look again, when the last look is not of just now."""
        async with self._one_at_a_time:
            if self._clock() - self._looked >= _FRESH_SECONDS:
                self._looked = self._clock()
                self._found = await self._see()

    async def _see(self) -> Found | None:
        # Not `asyncio.timeout`: a client that swallows its cancellation would hang the scrape.
        looking = asyncio.ensure_future(self._look())
        done, _ = await asyncio.wait({looking}, timeout=self._patience)
        looking.cancel()
        looking.add_done_callback(_heard)
        return _result(looking) if done else None

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield what was seen; where Redis was away nothing but that."""
        yield GaugeMetricFamily("docv_redis_up", UP, value=int(self._found is not None))
        for name, (what, labels) in SHARED.items():
            family = GaugeMetricFamily(name, what, labels=labels)
            for values, figure in (self._found or {}).get(name, {}).items():
                family.add_metric(values, figure)
            yield family


def _heard(looking: "asyncio.Future[Found]") -> None:
    """Whatever comes of a look that nobody waits for any more, asyncio need not complain of it."""
    if not looking.cancelled():
        looking.exception()


def _result(looking: "asyncio.Future[Found]") -> Found | None:
    error = looking.exception()
    if error is None:
        return looking.result()
    _log.warning("metrics.redis_away", error=type(error).__name__)
    return None
