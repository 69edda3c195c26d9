"""The metrics of one worker process; docs/metrics.md lists them.

IDs are never labels, and every label has a fixed set of values, so the number of series does not grow.
"""

import contextlib
import enum
import time
from collections.abc import Collection, Iterator
from http import HTTPStatus
from importlib.metadata import version

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
"""Label value for all unexpected values."""


class Step(enum.StrEnum):
    """A timed part of an attempt."""

    RATE_LIMIT = "rate_limit"
    """Waiting for a permit to send a request."""
    DOWNLOAD = "download"
    UNPACK = "unpack"
    UPLOAD = "upload"
    TOTAL = "total"
    """The whole attempt."""


# By default, each counter has a second series with its creation time, which is never used.
disable_created_metrics()  # type: ignore[no-untyped-call]  # it has no types
REGISTRY = CollectorRegistry()
PlatformCollector(REGISTRY)
ProcessCollector(registry=REGISTRY)

_EVALUATIONS = Counter("docv_evaluations", "Evaluations that ended.", ["outcome", "queue"], registry=REGISTRY)
_NO_DOCUMENTS = Counter(
    "docv_no_documents", "Manifests written that say no_documents, by reason.", ["reason"], registry=REGISTRY
)
_RESTRICTED = Counter(
    "docv_restricted",
    "Evaluations of military IDs and minors with images, by reason and by what became of the images.",
    ["reason", "handling"],
    registry=REGISTRY,
)
_ATTEMPTS_FAILED = Counter("docv_attempts_failed", "Attempts that failed.", ["cause"], registry=REGISTRY)
_DEAD_LETTERS = Counter(
    "docv_dead_letters_created", "Evaluations that became dead letters.", ["cause"], registry=REGISTRY
)
_REQUESTS = Counter("docv_riskos_requests", "Requests to RiskOS.", ["status"], registry=REGISTRY)
_DOWNLOADED = Counter("docv_downloaded_bytes", "Bytes of downloaded bundles.", registry=REGISTRY)
_UPLOADED = Counter("docv_uploaded_bytes", "Bytes of documents uploaded to the archive.", registry=REGISTRY)
_AFTER_ERASURE = Counter(
    "docv_objects_after_erasure",
    "Objects that an attempt wrote for an evaluation that was erased in the meantime.",
    registry=REGISTRY,
)
_NOTIFICATIONS = Counter(
    "docv_notifications", "Requests to DOCV_NOTIFY_URL, by whether they were taken.", ["result"], registry=REGISTRY
)
_STEPS = Histogram(
    "docv_step_seconds",
    "Seconds that a part of an attempt took.",
    ["step"],
    registry=REGISTRY,
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0),
)
_LIVE_LAG = Histogram(
    "docv_live_lag_seconds",
    "Seconds from accepting a live evaluation to its outcome.",
    registry=REGISTRY,
    buckets=(0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3600.0),
)
_LOOP_LAG = Histogram(
    "docv_event_loop_lag_seconds",
    "Seconds by which the event loop was late, measured once per second.",
    registry=REGISTRY,
    buckets=(0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0),
)
STALLED = Gauge("docv_worker_stalled", "1 if the worker has stalled and is about to exit.", registry=REGISTRY)
PAUSED = Gauge(
    "docv_worker_paused", "1 if the worker has paused, because a service fails on its machine only.", registry=REGISTRY
)
IN_FLIGHT = Gauge("docv_in_flight_evaluations", "Evaluations in flight in this process.", registry=REGISTRY)
SPOOLED = Gauge("docv_spool_bytes", "Bytes of bundles and documents spooled to disk.", registry=REGISTRY)
SPOOL_FREE = Gauge("docv_spool_disk_free_bytes", "Free bytes of the disk that has the spool.", registry=REGISTRY)
SPOOL_SIZE = Gauge("docv_spool_disk_size_bytes", "Size of the disk that has the spool.", registry=REGISTRY)

_STATUSES = frozenset({"2xx", "3xx", "4xx", "429", "5xx", "none", OTHER})
_label_values: dict[str, frozenset[str]] = dict.fromkeys(("outcome", "queue", "cause", "reason"), frozenset())


def add_build_info(registry: CollectorRegistry) -> None:
    """Add a metric with the version of docv-archive that this process runs."""
    Gauge("docv_build_info", "1, with the version of docv-archive.", ["version"], registry=registry).labels(
        version("docv-archive")
    ).set(1)


add_build_info(REGISTRY)
# Series exist before their first event, so that an alert can detect their rise from 0.
for _status in _STATUSES:
    _REQUESTS.labels(_status)
for _result in ("sent", "failed"):
    _NOTIFICATIONS.labels(_result)
for _step in Step:
    _STEPS.labels(_step)


def preset_labels(
    *,
    outcomes: Collection[str],
    queues: Collection[str],
    causes: Collection[str],
    reasons: Collection[str],
    restricted: Collection[tuple[str, str]] = (),
) -> None:
    """Set the values that labels may have, and create their series at 0.

    ``tasks`` defines these values, and this package must not import it.
    """
    _label_values.update(outcome=frozenset(outcomes), queue=frozenset(queues))
    _label_values.update(cause=frozenset(causes), reason=frozenset(reasons))
    for reason in reasons:
        _NO_DOCUMENTS.labels(reason)
    for reason, handling in restricted:
        _RESTRICTED.labels(reason, handling)
    for cause in (*causes, OTHER):
        _ATTEMPTS_FAILED.labels(cause)
        _DEAD_LETTERS.labels(cause)
    for outcome in outcomes:
        for queue in queues:
            _EVALUATIONS.labels(outcome, queue)


def known(value: str, allowed: Collection[str]) -> str:
    """Return a label's value, or ``other`` if it is not one of the allowed ones."""
    return value if value in allowed else OTHER


@contextlib.contextmanager
def timed(step: Step) -> Iterator[None]:
    """Observe how long the block takes as a step, even if it fails."""
    started = time.monotonic()
    try:
        yield
    finally:
        observe_step(step, time.monotonic() - started)


def observe_step(step: Step, seconds: float) -> None:
    """Observe how long a step took."""
    _STEPS.labels(step).observe(seconds)


def count_request(status: int | None, size: int) -> None:
    """Count a request to RiskOS and the bytes of its bundle; the status is None if no complete response arrived."""
    _REQUESTS.labels(_status_class(status)).inc()
    _DOWNLOADED.inc(size)


def count_uploaded(size: int) -> None:
    """Count bytes that were uploaded to the archive."""
    _UPLOADED.inc(size)


def count_objects_after_erasure(number: int) -> None:
    """Count objects that were written while their evaluation was erased."""
    _AFTER_ERASURE.inc(number)


def count_notification(*, is_sent: bool) -> None:
    """Count a request to the receiver of notifications."""
    _NOTIFICATIONS.labels("sent" if is_sent else "failed").inc()


def count_failed_attempt(cause: str) -> None:
    """Count an attempt that failed."""
    _ATTEMPTS_FAILED.labels(known(cause, _label_values["cause"])).inc()


def count_outcome(outcome: str, queue: str) -> None:
    """Count an evaluation that ended with an outcome."""
    _EVALUATIONS.labels(known(outcome, _label_values["outcome"]), known(queue, _label_values["queue"])).inc()


def count_restricted(reason: str, handling: str) -> None:
    """Count an evaluation whose images must not be kept, when a manifest first records this."""
    _RESTRICTED.labels(reason, handling).inc()


def count_no_documents(reason: str) -> None:
    """Count a manifest that records that there are no documents."""
    _NO_DOCUMENTS.labels(known(reason, _label_values["reason"])).inc()


def count_dead_letter(cause: str) -> None:
    """Count an evaluation that became a dead letter."""
    _DEAD_LETTERS.labels(known(cause, _label_values["cause"])).inc()


def observe_live_lag(seconds: float) -> None:
    """Observe how long a live evaluation took from its acceptance to its outcome."""
    _LIVE_LAG.observe(seconds)


def observe_loop_lag(seconds: float) -> None:
    """Observe how late the event loop was."""
    _LOOP_LAG.observe(seconds)


def _status_class(status: int | None) -> str:
    """Return the class of a status; 429 is its own class, because it means the rate limit."""
    if status is None:
        return "none"
    return known("429" if status == HTTPStatus.TOO_MANY_REQUESTS else f"{status // 100}xx", _STATUSES)
