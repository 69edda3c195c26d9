"""Names and units of the figures that one worker counts, as Prometheus wants them; docs/metrics.md lists them.

No ID is ever a label, and what a label may say is known beforehand: the number of series does not grow.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from http import HTTPStatus

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)

OTHER = "other"
"""What a label says of what it has no word for."""
_STATUSES = ("2xx", "3xx", "4xx", "429", "5xx", "none", OTHER)
_STEP_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
_LATE_SECONDS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0)
_LAG_SECONDS = (0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3600.0)


@dataclass(frozen=True, slots=True)
class LabelValues:
    """What the labels may say; the worker knows none of these words, whoever works in it does."""

    outcomes: Collection[str]
    queues: Collection[str]
    causes: Collection[str]
    steps: Collection[str]


class WorkerMetrics:
    """The figures of one worker.

    Args:
        words: what the labels may say; each is there from the start, so that it can be watched before it moves.
        stalled: returns why this worker has stalled, or None.
    """

    def __init__(self, words: LabelValues, stalled: Callable[[], str | None]) -> None:
        # When each counter began to count is a series more for each, and nobody asks for it.
        disable_created_metrics()  # type: ignore[no-untyped-call]  # it has no types
        self._words = words
        self.registry = CollectorRegistry()
        PlatformCollector(self.registry)
        ProcessCollector(registry=self.registry)
        self._outcomes = self._counter("docv_evaluations", "Evaluations that ended.", "outcome", "queue")
        self._stopped = self._counter("docv_attempts_failed", "Attempts that were stopped.", "cause")
        self._buried = self._counter("docv_dead_letters_created", "Evaluations that became dead letters.", "cause")
        self._answers = self._counter("docv_riskos_requests", "Requests to RiskOS.", "status")
        self._down = self._counter("docv_downloaded_bytes", "Bytes of bundles that were downloaded.")
        self._up = self._counter("docv_uploaded_bytes", "Bytes of documents that were put into the archive.")
        self._steps = self._histogram(
            "docv_step_seconds", "Seconds that a part of an attempt took.", _STEP_SECONDS, "step"
        )
        self._lag = self._histogram(
            "docv_live_lag_seconds", "Seconds from accepting a live evaluation to its outcome.", _LAG_SECONDS
        )
        self._late = self._histogram(
            "docv_event_loop_lag_seconds",
            "Seconds by which the event loop was late, measured once a second.",
            _LATE_SECONDS,
        )
        self._gauge("docv_worker_stalled", "1 if the worker has stalled and is about to exit.").set_function(
            lambda: stalled() is not None
        )
        for status in _STATUSES:
            self._answers.labels(status)
        for counter in (self._stopped, self._buried):
            for cause in (*words.causes, OTHER):
                counter.labels(cause)
        for step in words.steps:
            self._steps.labels(step)
        for outcome in words.outcomes:
            for queue in words.queues:
                self._outcomes.labels(outcome, queue)

    def watch(self, in_flight: Callable[[], int], spooled: Callable[[], int]) -> None:
        """Learn where to look for what goes up and down.

        Args:
            in_flight: tells how many evaluations are in flight.
            spooled: tells how many bytes are spooled.
        """
        self._gauge("docv_in_flight_evaluations", "Evaluations in flight in this process.").set_function(in_flight)
        self._gauge("docv_spool_bytes", "Bytes of bundles and documents that are on disk for now.").set_function(
            spooled
        )

    def took(self, step: str, seconds: float) -> None:
        """Count how long a step took."""
        self._steps.labels(_known(step, self._words.steps)).observe(seconds)

    def answered(self, status: int | None, size: int) -> None:
        """Count a request to RiskOS, and the bytes of its bundle."""
        self._answers.labels(_class_of(status)).inc()
        self._down.inc(size)

    def uploaded(self, size: int) -> None:
        """Count bytes that were put into the archive."""
        self._up.inc(size)

    def stopped(self, cause: str) -> None:
        """Count an attempt that was stopped."""
        self._stopped.labels(_known(cause, self._words.causes)).inc()

    def ended(self, outcome: str, queue: str) -> None:
        """Count an outcome."""
        words = self._words
        self._outcomes.labels(_known(outcome, words.outcomes), _known(queue, words.queues)).inc()

    def buried(self, cause: str) -> None:
        """Count a dead letter."""
        self._buried.labels(_known(cause, self._words.causes)).inc()

    def lagged(self, seconds: float) -> None:
        """Count how long a live evaluation took from door to outcome."""
        self._lag.observe(seconds)

    def was_late(self, seconds: float) -> None:
        """Count how late the event loop was."""
        self._late.observe(seconds)

    def _counter(self, name: str, what: str, *labels: str) -> Counter:
        return Counter(name, what, labels, registry=self.registry)

    def _gauge(self, name: str, what: str) -> Gauge:
        return Gauge(name, what, registry=self.registry)

    def _histogram(self, name: str, what: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(name, what, labels, registry=self.registry, buckets=buckets)


def _known(word: str, words: Collection[str]) -> str:
    return word if word in words else OTHER


def _class_of(status: int | None) -> str:
    """A status by its class; 429 by itself, for it says something else than the others of its class."""
    if status is None:
        return "none"
    text = str(status) if status == HTTPStatus.TOO_MANY_REQUESTS else f"{status // 100}xx"
    return _known(text, _STATUSES)
