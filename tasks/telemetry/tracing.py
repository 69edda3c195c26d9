"""Follow an evaluation from its acceptance to its manifest: spans of our own, where somebody wants them.

Nothing is in them but figures, words of our own and the evaluation's ID: an instrumentation of the HTTP client or of
Celery would tell URLs, queries and arguments. Where nobody wants them nothing of OpenTelemetry is imported.
"""

import contextlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer


class _Switch:
    """What makes the spans of this process; None makes none."""

    tracer: "Tracer | None" = None


def use(tracer: "Tracer | None") -> None:
    """Trace from now on, or not any more."""
    _Switch.tracer = tracer


def span(name: str, **facts: str | int) -> AbstractContextManager[None]:
    """Have a part of the work be a span for as long as the block lasts.

    Args:
        name: of the part.
        facts: figures and words of our own.
    """
    return _open(_Switch.tracer, name, facts) if _Switch.tracer else contextlib.nullcontext()


def set_facts(**facts: str | int) -> None:
    """Add facts to the current span that were not known when it began."""
    if _Switch.tracer:
        from opentelemetry.trace import get_current_span  # noqa: PLC0415

        get_current_span().set_attributes(_attributes(facts))


def current_traceparent() -> str | None:
    """Return the current span as W3C ``traceparent``; it goes into the ledger with what is accepted."""
    if not _Switch.tracer:
        return None
    carrier: dict[str, str] = {}
    _propagator().inject(carrier)
    return carrier.get("traceparent")


def attempt(accepted: str | None, *, alone: bool, **facts: str | int) -> AbstractContextManager[None]:
    """Have an attempt be a span that leads back to where its evaluation was accepted.

    Args:
        accepted: ``traceparent`` of that.
        alone: whether both are one trace, as for what is live. A backfill would make one of thousands, which nobody can
            look at: each attempt is a trace of its own then, with a link.
        facts: figures and words of our own.
    """
    if not _Switch.tracer:
        return contextlib.nullcontext()
    from opentelemetry.trace import Link, get_current_span  # noqa: PLC0415

    before = _propagator().extract({"traceparent": accepted or ""})
    link = get_current_span(before).get_span_context()
    how = {"context": before} if alone else {"links": [Link(link)] if link.is_valid else []}
    return _open(_Switch.tracer, "attempt", facts, **how)


@contextlib.contextmanager
def _open(tracer: "Tracer", name: str, facts: dict[str, str | int], **how: Any) -> Iterator[None]:
    # The text of a foreign error may hold a URL; of ours, too, only the kind is told.
    with tracer.start_as_current_span(
        name, attributes=_attributes(facts), record_exception=False, set_status_on_exception=False, **how
    ) as opened:
        try:
            yield
        except BaseException as error:
            opened.set_attribute("error.type", type(error).__name__)
            raise


def _attributes(facts: dict[str, str | int]) -> dict[str, str | int]:
    return {f"docv.{fact}": value for fact, value in facts.items()}


def _propagator() -> Any:
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: PLC0415

    return TraceContextTextMapPropagator()
