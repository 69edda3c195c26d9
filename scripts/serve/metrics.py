"""The figures of the doors, for Prometheus: names, units and labels. No ID and no path is ever a label."""

import asyncio
import enum

from aiohttp import web
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Histogram,
    disable_created_metrics,
    generate_latest,
)

from scripts.serve.http.connection import CloseReason
from scripts.serve.http.responses import raw_response
from worker.metrics.shared_metrics import SharedMetrics

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class EventResult(enum.StrEnum):
    """What came of a request to the webhook."""

    ACCEPTED = "accepted"
    REPEATED = "repeated"
    IGNORED_TYPE = "ignored_type"
    TEST_PING = "test_ping"
    OTHER_ENVIRONMENT = "other_environment"
    UNUSABLE = "unusable"
    REFUSED_LOGIN = "refused_login"
    UNKNOWN_ACCOUNT = "unknown_account"
    BAD_BODY = "bad_body"
    NOT_KEPT = "not_kept"


class IdResult(enum.StrEnum):
    """What came of an ID that was handed in."""

    ACCEPTED = "accepted"
    REPEATED = "repeated"
    UNDER_WAY = "under_way"
    BAD = "bad"


class HttpMetrics:
    """The figures of one process."""

    def __init__(self) -> None:
        # When each counter began to count is a series more for each, and nobody asks for it.
        disable_created_metrics()  # type: ignore[no-untyped-call]  # it has no types
        self._registry = CollectorRegistry()
        self._events = self._counter("docv_webhook_events", "Requests to the webhook.", "result")
        self._ids = self._counter("docv_intake_ids", "IDs that were handed in.", "result")
        self._ended = self._counter("docv_http_connections_ended", "Connections that we ended.", "why")
        self._requests = self._counter("docv_http_requests", "Requests answered.", "route", "status")
        self._seconds = Histogram(
            "docv_http_request_seconds",
            "Seconds from a request's headers to its answer.",
            ["route"],
            registry=self._registry,
            buckets=_SECONDS,
        )
        # A figure that is there from the start can be watched before it moves.
        for counter, values in ((self._events, EventResult), (self._ids, IdResult), (self._ended, CloseReason)):
            for value in values:
                counter.labels(value.value)

    def _counter(self, name: str, what: str, *labels: str) -> Counter:
        return Counter(name, what, labels, registry=self._registry)

    def count_event(self, result: EventResult) -> None:
        """Count a request to the webhook."""
        self._events.labels(result.value).inc()

    def count_ids(self, result: IdResult, count: int) -> None:
        """Count IDs that were handed in."""
        self._ids.labels(result.value).inc(count)

    def count_closed(self, why: CloseReason) -> None:
        """Count a connection that we ended."""
        self._ended.labels(why.value).inc()

    def observe_request(self, route: str, status: int, seconds: float) -> None:
        """Count an answer, by the class of its status."""
        self._requests.labels(route, f"{status // 100}xx").inc()
        self._seconds.labels(route).observe(seconds)

    def register_shared(self, shared: SharedMetrics) -> None:
        """Also show the metrics that all processes share."""
        self._registry.register(shared)

    async def show(self, _: web.Request) -> web.Response:
        """Answer ``GET /metrics``."""
        page = await asyncio.to_thread(generate_latest, self._registry)
        return raw_response(CONTENT_TYPE_LATEST, page)
