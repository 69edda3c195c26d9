"""The metrics that all processes share: read from Redis at most every five seconds."""

import asyncio
import enum
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent.futures import CancelledError

import structlog
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from redis.exceptions import RedisError


class SharedGauge(enum.Enum):
    """A shared metric: its name, its help and its labels."""

    LEDGER_EVALUATIONS = ("docv_ledger_evaluations", "Evaluations without an outcome, by state.", "state")
    HELD_EVALUATIONS = ("docv_held_evaluations", "Evaluations waiting for a hold to end, by account.", "account")
    QUEUE_EVALUATIONS = ("docv_queue_evaluations", "Evaluations waiting in a queue.", "queue")
    QUEUE_OLDEST = ("docv_queue_oldest_seconds", "Seconds that the oldest evaluation in a queue has waited.", "queue")
    QUEUE_WORKERS = ("docv_queue_workers", "Workers that serve a queue.", "queue")
    DEAD_LETTERS = ("docv_dead_letters", "Dead letters that wait for an operator.")
    DEAD_LETTERS_OLDEST = (
        *(
            "docv_dead_letters_oldest_seconds",
            "Seconds since the last attempt of the oldest dead letter, 0 without one.",
        ),
    )
    REJECTED_MESSAGES = ("docv_rejected_messages", "Messages that did not fit the contract and were kept.")
    HOLDS = (
        "docv_holds",
        "1 if an account, run or the archive is on hold for this reason.",
        "account",
        "scope",
        "reason",
    )
    LIVE_REFUSALS = (
        *("docv_live_refusals", "Live answers in a row without documents that no evidence explains, by account."),
        "account",
    )
    RATE_CONFIGURED = (
        *("docv_rate_configured_per_second", "Requests per second configured by settings or an operator."),
        "account",
    )
    RATE_EFFECTIVE = ("docv_rate_effective_per_second", "Requests per second that workers may send now.", "account")
    RATE_OBSERVED = ("docv_rate_observed_per_second", "Requests per second over the last minute.", "account")
    QUOTA = ("docv_quota_requests", "Requests per 24 hours of an account; absent if it has no quota.", "account")
    QUOTA_USED = ("docv_quota_used_requests", "Requests sent in the quota's current day.", "account")
    QUOTA_LEFT = ("docv_quota_left_requests", "Requests left in the quota's current day.", "account")
    VERIFIED = (
        *(
            "docv_verify_last_success_timestamp_seconds",
            "When verify last found no difference, as a Unix time; 0 for never.",
        ),
    )
    DISPOSED = (
        *(
            "docv_retention_last_success_timestamp_seconds",
            "When retention apply --unattended last succeeded, as a Unix time; 0 for never.",
        ),
    )
    REDIS_MEMORY = ("docv_redis_memory_bytes", "Memory that Redis uses.")
    REDIS_MEMORY_MAX = ("docv_redis_memory_max_bytes", "Memory that Redis may use, 0 for no limit.")
    REDIS_UP = ("docv_redis_up", "1 if this process reaches Redis.")

    def __init__(self, metric_name: str, help_text: str, *labels: str) -> None:
        self.metric_name, self.help_text, self.labels = metric_name, help_text, labels


Samples = Mapping[SharedGauge, Mapping[tuple[str, ...], float]]
_FRESH_SECONDS = 5.0
_log = structlog.get_logger("docv.metrics")


class SharedMetrics(Collector):
    """Collects the shared metrics. Call it from any thread except that of the event loop.

    Args:
        read: reads all of them except ``REDIS_UP``.
        loop: runs ``read``, so that a scrape does not open another client.
        clock: returns the seconds of a monotonic clock.
        patience_seconds: longest time that a scrape waits for Redis.
    """

    def __init__(
        self,
        read: Callable[[], Awaitable[Samples]],
        loop: asyncio.AbstractEventLoop,
        clock: Callable[[], float] = time.monotonic,
        patience_seconds: float = 1.0,
    ) -> None:
        self._read, self._loop, self._clock, self._patience_seconds = read, loop, clock, patience_seconds
        self._lock = threading.Lock()
        self._read_at = float("-inf")
        self._samples: Samples | None = None

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield the shared metrics, or only ``REDIS_UP`` if they cannot be read."""
        with self._lock:
            if self._clock() - self._read_at >= _FRESH_SECONDS:
                self._read_at = self._clock()
                self._samples = self._read_in_loop()
            samples = self._samples
        up: Samples = {SharedGauge.REDIS_UP: {(): int(samples is not None)}}
        for gauge, values in {**(samples or {}), **up}.items():
            family = GaugeMetricFamily(gauge.metric_name, gauge.help_text, labels=gauge.labels)
            for labels, value in values.items():
                family.add_metric(labels, value)
            yield family

    def _read_in_loop(self) -> Samples | None:
        reading = asyncio.run_coroutine_threadsafe(self._try_to_read(), self._loop)
        try:
            return reading.result(self._patience_seconds)
        except (TimeoutError, CancelledError):
            reading.cancel()
            return None

    async def _try_to_read(self) -> Samples | None:
        try:
            return await self._read()
        except Exception as error:  # noqa: BLE001  # an unexpected value must not hide the other metrics
            away = isinstance(error, (RedisError, OSError))
            _log.warning("metrics.redis_away" if away else "metrics.failed", error=type(error).__name__)
            return None
