"""One trace leads from where an evaluation is accepted to its manifest, and holds nothing that is not ours."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from scripts.simulator.scenarios import Scenario, eval_id_for
from tasks.ledger.serialization import options_as_json
from tasks.model.evaluation import Evaluation
from tasks.model.job import EnqueueOptions, Queue, Trigger
from tasks.storage.manifest import read_manifest
from tasks.telemetry import tracing
from tests.riskos import KEY
from tests.tasks.pipeline.test_attempt import Yard, simulator, yard  # noqa: F401  # fixtures: a real pipeline

EVAL_ID = eval_id_for(Scenario.DOCUMENTED, 7)
STEPS = ["look_up", "rate_limit", "download", "unpack", "store", "manifest"]


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    provider, seen = TracerProvider(), InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(seen))
    tracing.use(provider.get_tracer("test"))
    yield seen
    tracing.use(None)
    provider.shutdown()


async def archived(yard: Yard, queue: Queue, eval_id: str = EVAL_ID) -> None:  # noqa: F811
    await yard.ledger.accept([eval_id], EnqueueOptions(queue, "default", Trigger("webhook")))
    (entry,) = await yard.take(eval_id)
    await yard.attempt(entry)


def named(seen: InMemorySpanExporter, name: str) -> ReadableSpan:
    (found,) = [span for span in seen.get_finished_spans() if span.name == name]
    return found


def trace_of(span: ReadableSpan) -> int:
    assert span.context
    return span.context.trace_id


async def test_one_trace_leads_from_acceptance_to_the_manifest(yard: Yard, spans: InMemorySpanExporter) -> None:  # noqa: F811
    await archived(yard, Queue.LIVE)
    accept, attempt = named(spans, "accept"), named(spans, "attempt")
    assert [span.name for span in spans.get_finished_spans()] == ["accept", *STEPS, "attempt"]
    assert {trace_of(span) for span in spans.get_finished_spans()} == {trace_of(accept)}
    assert attempt.parent
    assert accept.context
    assert attempt.parent.span_id == accept.context.span_id
    assert {span.parent.span_id for span in map(named, [spans] * 6, STEPS) if span.parent} == {attempt.context.span_id}
    assert attempt.attributes == {"docv.eval_id": EVAL_ID, "docv.queue": "live", "docv.attempt": 1}


async def test_the_span_of_a_download_has_the_request_id_that_the_manifest_has(
    yard: Yard,  # noqa: F811
    spans: InMemorySpanExporter,
) -> None:
    await archived(yard, Queue.LIVE)
    found = await read_manifest(yard.means.manifests, Evaluation(EVAL_ID, "sandbox"))
    assert found
    assert found.manifest.response.request_id
    assert named(spans, "download").attributes == {"docv.request_id": found.manifest.response.request_id}


async def test_an_attempt_of_a_backfill_is_a_trace_of_its_own_that_is_linked(
    yard: Yard,  # noqa: F811
    spans: InMemorySpanExporter,
) -> None:
    await archived(yard, Queue.BACKFILL)
    accept, attempt = named(spans, "accept"), named(spans, "attempt")
    assert attempt.parent is None
    assert trace_of(attempt) != trace_of(accept)
    assert [link.context.trace_id for link in attempt.links] == [trace_of(accept)]


async def test_the_trace_survives_what_happens_on_the_way(yard: Yard, spans: InMemorySpanExporter) -> None:  # noqa: F811
    eval_id = eval_id_for(Scenario.ERROR_500_ALWAYS, 7)
    await yard.ledger.accept([eval_id], EnqueueOptions(Queue.LIVE, "default", Trigger("webhook")))
    (entry,) = await yard.take(eval_id)
    await yard.attempt(entry)
    await yard.attempt(await yard.taken_again(entry))
    attempts = [span for span in spans.get_finished_spans() if span.name == "attempt"]
    assert [span.attributes["docv.attempt"] for span in attempts if span.attributes] == [1, 2]
    assert {trace_of(span) for span in attempts} == {trace_of(named(spans, "accept"))}
    failed = [span for span in spans.get_finished_spans() if span.name == "download"]
    assert {span.attributes["error.type"] for span in failed if span.attributes} == {"ServiceFailed"}


async def test_a_span_holds_no_address_no_key_and_no_text_of_an_error(
    yard: Yard,  # noqa: F811
    spans: InMemorySpanExporter,
) -> None:
    await archived(yard, Queue.LIVE)
    await archived(yard, Queue.LIVE, eval_id_for(Scenario.ERROR_500_ALWAYS, 8))
    told = "".join(span.to_json() for span in spans.get_finished_spans())
    assert "http" not in told
    assert KEY not in told
    assert "user_uploaded" not in told
    assert not any(span.events for span in spans.get_finished_spans())


async def test_a_traceparent_that_is_none_begins_a_new_trace(yard: Yard, spans: InMemorySpanExporter) -> None:  # noqa: F811
    entry = replace(await yard.one(Scenario.DOCUMENTED), trace="anything", queue=Queue.LIVE)
    await yard.attempt(entry)
    assert named(spans, "attempt").parent is None


def test_nothing_is_traced_and_nothing_written_down_unless_it_is_wanted() -> None:
    with tracing.span("store", documents=3), tracing.attempt(None, alone=True):
        assert tracing.current_traceparent() is None
    assert "trace" not in options_as_json(EnqueueOptions(Queue.LIVE, "default", Trigger("webhook")), [], listed=False)


def test_who_does_not_trace_imports_nothing_of_it() -> None:
    # redis-py does by itself, where it finds it; that is why the image comes without.
    code = "import sys, tasks.telemetry.tracing, worker.tracing; sys.exit('opentelemetry' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
