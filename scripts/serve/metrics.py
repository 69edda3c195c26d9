"""The Prometheus metrics of the HTTP server. No ID and no path is ever a label."""

import asyncio
import enum
from collections.abc import Iterable
from http import HTTPStatus

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
from worker.metrics.worker_metrics import add_build_info

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class EventResult(enum.StrEnum):
    """Result of a request to the webhook."""

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
    """Result of a submitted ID."""

    ACCEPTED = "accepted"
    REPEATED = "repeated"
    UNDER_WAY = "under_way"
    BAD = "bad"


def _status_class(status: int) -> str:
    return str(status) if status == HTTPStatus.SERVICE_UNAVAILABLE else f"{status // 100}xx"


class HttpMetrics:
    """The metrics of one process."""

    def __init__(self) -> None:
        # Otherwise each counter adds a series with its creation time, which no dashboard or alert uses.
        disable_created_metrics()  # type: ignore[no-untyped-call]  # it has no types
        self._registry = CollectorRegistry()
        self._events = self._counter("docv_webhook_events", "Requests to the webhook.", "result")
        self._ids = self._counter("docv_intake_ids", "Evaluation IDs submitted to POST /evaluations.", "result")
        self._ended = self._counter("docv_http_connections_ended", "Connections closed by the server.", "why")
        self._wrong_secrets = self._counter("docv_http_wrong_secrets", "Requests with a wrong secret.", "status")
        self._requests = self._counter("docv_http_requests", "Requests answered.", "route", "status")
        self._seconds = Histogram(
            "docv_http_request_seconds",
            "Seconds from a request's headers to its answer.",
            ["route"],
            registry=self._registry,
            buckets=_SECONDS,
        )
        add_build_info(self._registry)
        # Alerts need each series to exist before its first increment.
        for counter, values in ((self._events, EventResult), (self._ids, IdResult), (self._ended, CloseReason)):
            for value in values:
                counter.labels(value.value)
        for status in (web.HTTPUnauthorized.status_code, web.HTTPTooManyRequests.status_code):
            self._wrong_secrets.labels(str(status))

    def _counter(self, name: str, description: str, *labels: str) -> Counter:
        return Counter(name, description, labels, registry=self._registry)

    def preset_routes(self, routes: Iterable[str]) -> None:
        """Create the series of failed requests at 0, so that alerts see their first increment."""
        for route in routes:
            for status in (HTTPStatus.INTERNAL_SERVER_ERROR, HTTPStatus.SERVICE_UNAVAILABLE):
                self._requests.labels(route, _status_class(status))

    def count_event(self, result: EventResult) -> None:
        """Count a request to the webhook."""
        self._events.labels(result.value).inc()

    def count_ids(self, result: IdResult, count: int) -> None:
        """Count evaluation IDs submitted to POST /evaluations."""
        self._ids.labels(result.value).inc(count)

    def count_closed(self, why: CloseReason) -> None:
        """Count a connection that the server closed."""
        self._ended.labels(why.value).inc()

    def count_wrong_secret(self, status: int) -> None:
        """Count a request with a wrong secret, by the status it was answered with."""
        self._wrong_secrets.labels(str(status)).inc()

    def observe_request(self, route: str, status: int, seconds: float) -> None:
        """Count an answer by the class of its status; 503 is separate: Redis or the archive fails."""
        self._requests.labels(route, _status_class(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def register_shared(self, shared: SharedMetrics) -> None:
        """Also show the metrics that all processes share."""
        self._registry.register(shared)

    async def show(self, _: web.Request) -> web.Response:
        """Answer ``GET /metrics``."""
        page = await asyncio.to_thread(generate_latest, self._registry)
        return raw_response(CONTENT_TYPE_LATEST, page)
