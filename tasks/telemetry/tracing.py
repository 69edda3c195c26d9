"""Follow an evaluation from its acceptance to its manifest, by OpenTelemetry's conventions.

Spans hold numbers, fixed words and the evaluation's ID. The ready-made instrumentations would record URLs, queries and
arguments. Without DOCV_TRACING nothing of OpenTelemetry is imported.
"""

import contextlib
import enum
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span, Tracer

Fact = str | int | None


class SpanKind(enum.Enum):
    """The side of a request or message that a span describes, with OpenTelemetry's names."""

    INTERNAL = enum.auto()
    SERVER = enum.auto()
    CLIENT = enum.auto()
    PRODUCER = enum.auto()
    CONSUMER = enum.auto()


class _TracerHolder:
    """The tracer of this process; None to create no spans."""

    tracer: "Tracer | None" = None


def set_tracer(tracer: "Tracer | None") -> None:
    """Create spans with this tracer from now on; create none if it is None."""
    _TracerHolder.tracer = tracer


def is_on() -> bool:
    """Return whether this process creates spans."""
    return _TracerHolder.tracer is not None


def span(
    name: str, kind: SpanKind = SpanKind.INTERNAL, *, answers: tuple[type[BaseException], ...] = (), **facts: Fact
) -> AbstractContextManager[None]:
    """Record the block as a span.

    Args:
        name: name of the span.
        answers: exceptions that are normal answers, so that the span has not failed.
        facts: numbers and fixed words.
    """
    if not _TracerHolder.tracer:
        return contextlib.nullcontext()
    return _open(_TracerHolder.tracer, name, kind, _attributes(facts), answers)


def s3_request(operation: str, answers: tuple[type[BaseException], ...] = ()) -> AbstractContextManager[None]:
    """Record a request to S3 as a span, named by OpenTelemetry's conventions for AWS.

    Args:
        operation: name of the operation in S3's API, such as ``PutObject``.
        answers: exceptions that are normal answers, so that the request has not failed.
    """
    if not _TracerHolder.tracer:
        return contextlib.nullcontext()
    facts: dict[str, str | int] = {"rpc.system": "aws-api", "rpc.service": "S3", "rpc.method": operation}
    return _open(_TracerHolder.tracer, f"S3.{operation}", SpanKind.CLIENT, facts, answers)


def http_request(method: str, route: str | None, traceparent: str | None) -> AbstractContextManager[None]:
    """Record the handling of an HTTP request as a span within the caller's trace.

    Args:
        method: method of the request, or ``_OTHER`` if it is not a known one.
        route: the route that matched; None if none did. The path itself may contain anything.
        traceparent: header of that name, as the caller sent it.
    """
    if not _TracerHolder.tracer:
        return contextlib.nullcontext()
    facts: dict[str, str | int] = {"http.request.method": method, "url.scheme": "http"}
    if route:
        facts["http.route"] = route
    shown = "HTTP" if method == "_OTHER" else method
    name = f"{shown} {route}" if route else shown
    return _open(_TracerHolder.tracer, name, SpanKind.SERVER, facts, context=_extract(traceparent))


def accept(queue: str, evaluations: int) -> AbstractContextManager[None]:
    """Record the acceptance of evaluations as a span; the spans of their attempts refer to it."""
    if not _TracerHolder.tracer:
        return contextlib.nullcontext()
    facts = _messaging("accept", "create", queue) | _attributes({"queue": queue, "evaluations": evaluations})
    if evaluations != 1:
        facts["messaging.batch.message_count"] = evaluations
    return _open(_TracerHolder.tracer, "accept", SpanKind.PRODUCER, facts)


def process_message(traceparent: str | None, *, queue: str, evaluations: int) -> AbstractContextManager[None]:
    """Record the processing of a producer's message as a span within the producer's trace."""
    if not _TracerHolder.tracer:
        return contextlib.nullcontext()
    facts = _messaging("process", "process", queue) | _attributes({"queue": queue, "evaluations": evaluations})
    return _open(_TracerHolder.tracer, "process", SpanKind.CONSUMER, facts, context=_extract(traceparent))


def attempt(accepted: str | None, *, queue: str, joins_trace: bool, **facts: Fact) -> AbstractContextManager[None]:
    """Record an attempt as a span that refers to the acceptance of its evaluation.

    Args:
        accepted: ``traceparent`` of the acceptance.
        queue: queue that the evaluation came from.
        joins_trace: whether both are one trace, as for live evaluations. The trace of a backfill would have
            thousands of attempts, so each attempt of a backfill is its own trace with a link.
        facts: numbers and fixed words.
    """
    if not _TracerHolder.tracer:
        return contextlib.nullcontext()
    from opentelemetry.trace import Link, get_current_span  # noqa: PLC0415

    before = _extract(accepted)
    link = get_current_span(before).get_span_context()
    how = {"context": before} if joins_trace else {"links": [Link(link)] if link.is_valid else []}
    attributes = _messaging("attempt", "process", queue) | _attributes({"queue": queue, **facts})
    return _open(_TracerHolder.tracer, "attempt", SpanKind.CONSUMER, attributes, **how)


def set_facts(**facts: Fact) -> None:
    """Add facts to the current span that were not known when it began."""
    set_attributes(_attributes(facts))


def set_attributes(attributes: Mapping[str, str | int]) -> None:
    """Add attributes to the current span that OpenTelemetry's conventions name."""
    if _TracerHolder.tracer:
        from opentelemetry.trace import get_current_span  # noqa: PLC0415

        get_current_span().set_attributes(dict(attributes))


def set_request(method: str, url: str) -> None:
    """Add the method and the server of a request to the current span; the rest of the URL is not recorded."""
    if _TracerHolder.tracer:
        set_attributes({"http.request.method": method, "server.address": urlsplit(url).hostname or ""})


def record_failure(error_type: str, **facts: Fact) -> None:
    """Mark the current span as failed.

    Args:
        error_type: class of the error, or the status of the response.
        facts: numbers and fixed words.
    """
    if _TracerHolder.tracer:
        from opentelemetry.trace import get_current_span  # noqa: PLC0415

        _fail(get_current_span(), error_type)
        set_facts(**facts)


def current_traceparent() -> str | None:
    """Return the current span as W3C ``traceparent``; the ledger keeps it with accepted evaluations."""
    if not _TracerHolder.tracer:
        return None
    carrier: dict[str, str] = {}
    _propagator().inject(carrier)
    return carrier.get("traceparent")


@contextlib.contextmanager
def _open(
    tracer: "Tracer",
    name: str,
    kind: SpanKind,
    attributes: dict[str, str | int],
    answers: tuple[type[BaseException], ...] = (),
    **how: Any,
) -> Iterator[None]:
    from opentelemetry import trace  # noqa: PLC0415

    # The text of a foreign error may hold a URL, so spans record only the class.
    with tracer.start_as_current_span(
        name,
        kind=trace.SpanKind[kind.name],
        attributes=attributes,
        record_exception=False,
        set_status_on_exception=False,
        **how,
    ) as opened:
        try:
            yield
        except BaseException as error:
            if not isinstance(error, answers):
                _fail(opened, type(error).__name__)
            raise


def _fail(failed: "Span", error_type: str) -> None:
    from opentelemetry.trace import Status, StatusCode  # noqa: PLC0415

    failed.set_attribute("error.type", error_type)
    failed.set_status(Status(StatusCode.ERROR))


def _messaging(operation: str, kind: str, queue: str) -> dict[str, str | int]:
    return {
        "messaging.system": "celery",
        "messaging.destination.name": queue,
        "messaging.operation.name": operation,
        "messaging.operation.type": kind,
    }


def _attributes(facts: Mapping[str, Fact]) -> dict[str, str | int]:
    return {f"docv.{fact}": value for fact, value in facts.items() if value is not None}


def _extract(traceparent: str | None) -> "Context":
    """Return the context of a traceparent, or an empty one, which begins a new trace, if it is not valid."""
    from opentelemetry.context import Context  # noqa: PLC0415

    return _propagator().extract({"traceparent": traceparent or ""}, Context())  # type: ignore[no-any-return]


def _propagator() -> Any:
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: PLC0415

    return TraceContextTextMapPropagator()
