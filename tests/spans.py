"""Collect the spans that the process of a test creates."""

from collections.abc import Iterator

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tasks.telemetry import tracing

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
PARENT_TRACE, PARENT_SPAN = int(PARENT[3:35], 16), int(PARENT[36:52], 16)
INVALID = [
    *("anything", "", PARENT[:-1], PARENT.upper().replace("00-", "FF-")),
    "ff" + PARENT[2:],
    PARENT.replace(PARENT[3:35], "0" * 32),
    PARENT.replace(PARENT[36:52], "0" * 16),
]


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    provider, exporter = TracerProvider(), InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracing.set_tracer(provider.get_tracer("test"))
    yield exporter
    tracing.set_tracer(None)
    provider.shutdown()


def named(exporter: InMemorySpanExporter, name: str) -> ReadableSpan:
    """Return the one span of this name."""
    (found,) = [span for span in exporter.get_finished_spans() if span.name == name]
    return found


def get_trace_id(span: ReadableSpan) -> int:
    assert span.context
    return span.context.trace_id


def get_parent_id(span: ReadableSpan) -> int | None:
    return span.parent.span_id if span.parent else None


def attributes_of(span: ReadableSpan) -> dict[str, object]:
    return dict(span.attributes or {})
