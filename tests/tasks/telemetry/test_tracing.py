"""One trace covers an evaluation from its acceptance to its manifest, without addresses, keys and error texts."""

import subprocess
import sys
from dataclasses import replace

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from scripts.simulator.scenarios import Scenario, eval_id_for
from tasks.ledger.serialization import options_as_json
from tasks.model.evaluation import Evaluation
from tasks.model.job import EnqueueOptions, Queue, Trigger
from tasks.storage.manifest import read_manifest
from tasks.telemetry import tracing
from tests.riskos import KEY
from tests.spans import INVALID, PARENT, PARENT_SPAN, attributes_of, get_parent_id, get_trace_id, named, spans  # noqa: F401  # a fixture
from tests.tasks.pipeline.test_attempt import AttemptHarness, harness, simulator  # noqa: F401  # fixtures: a real pipeline

EVAL_ID = eval_id_for(Scenario.DOCUMENTED, 7)
STEPS = ["look_up", "rate_limit", "download", "unpack", "store", "manifest"]


async def archived(harness: AttemptHarness, queue: Queue, eval_id: str = EVAL_ID) -> None:  # noqa: F811
    await harness.ledger.accept([eval_id], EnqueueOptions(queue, "default", Trigger("webhook")))
    (job,) = await harness.lease(eval_id)
    await harness.attempt(job)


async def test_one_trace_covers_acceptance_to_manifest(harness: AttemptHarness, spans: InMemorySpanExporter) -> None:  # noqa: F811
    await archived(harness, Queue.LIVE)
    accept, attempt = named(spans, "accept"), named(spans, "attempt")
    ours = [span.name for span in spans.get_finished_spans() if not span.name.startswith("S3.")]
    assert ours == ["accept", *STEPS, "attempt"]
    assert {get_trace_id(span) for span in spans.get_finished_spans()} == {get_trace_id(accept)}
    assert attempt.parent
    assert accept.context
    assert attempt.parent.span_id == accept.context.span_id
    assert {span.parent.span_id for span in map(named, [spans] * 6, STEPS) if span.parent} == {attempt.context.span_id}
    assert {name: value for name, value in attributes_of(attempt).items() if name.startswith("docv.")} == {
        "docv.eval_id": EVAL_ID,
        "docv.queue": "live",
        "docv.attempt": 1,
        "docv.account": "default",
        "docv.outcome": "archived",
    }


async def test_the_span_of_a_download_has_the_request_id_of_the_manifest(
    harness: AttemptHarness,  # noqa: F811
    spans: InMemorySpanExporter,  # noqa: F811
) -> None:
    await archived(harness, Queue.LIVE)
    found = await read_manifest(harness.context.manifests, Evaluation(EVAL_ID, "sandbox"))
    assert found
    assert found.manifest.response.request_id
    assert attributes_of(named(spans, "download"))["docv.request_id"] == found.manifest.response.request_id


async def test_an_attempt_of_a_backfill_has_its_own_linked_trace(
    harness: AttemptHarness,  # noqa: F811
    spans: InMemorySpanExporter,  # noqa: F811
) -> None:
    await archived(harness, Queue.BACKFILL)
    accept, attempt = named(spans, "accept"), named(spans, "attempt")
    assert attempt.parent is None
    assert get_trace_id(attempt) != get_trace_id(accept)
    assert [link.context.trace_id for link in attempt.links] == [get_trace_id(accept)]


async def test_the_trace_continues_in_the_next_attempt(harness: AttemptHarness, spans: InMemorySpanExporter) -> None:  # noqa: F811
    eval_id = eval_id_for(Scenario.ERROR_500_ALWAYS, 7)
    await harness.ledger.accept([eval_id], EnqueueOptions(Queue.LIVE, "default", Trigger("webhook")))
    (job,) = await harness.lease(eval_id)
    await harness.attempt(job)
    await harness.attempt(await harness.lease_again(job))
    attempts = [span for span in spans.get_finished_spans() if span.name == "attempt"]
    assert [span.attributes["docv.attempt"] for span in attempts if span.attributes] == [1, 2]
    assert {get_trace_id(span) for span in attempts} == {get_trace_id(named(spans, "accept"))}
    failed = [span for span in spans.get_finished_spans() if span.name == "download"] + attempts
    assert {attributes_of(span)["error.type"] for span in failed} == {"ServiceFailed"}
    assert {span.status.status_code for span in failed} == {StatusCode.ERROR}
    assert {attributes_of(span)["docv.cause"] for span in attempts} == {"service_failed"}


async def test_the_span_of_a_download_has_the_kind_of_the_error_when_riskos_denies_the_request(
    harness: AttemptHarness,  # noqa: F811
    spans: InMemorySpanExporter,  # noqa: F811
) -> None:
    await archived(harness, Queue.LIVE, eval_id_for(Scenario.FORBIDDEN_ALWAYS, 9))
    attributes = named(spans, "download").attributes
    assert attributes
    assert attributes["error.type"] == "Forbidden"


async def test_a_span_holds_no_address_no_key_and_no_text_of_an_error(
    harness: AttemptHarness,  # noqa: F811
    spans: InMemorySpanExporter,  # noqa: F811
) -> None:
    await archived(harness, Queue.LIVE)
    await archived(harness, Queue.LIVE, eval_id_for(Scenario.ERROR_500_ALWAYS, 8))
    exported = "".join(span.to_json() for span in spans.get_finished_spans())
    assert "://" not in exported
    assert "/api/" not in exported
    assert KEY not in exported
    assert "user_uploaded" not in exported
    assert not any(span.events for span in spans.get_finished_spans())


async def test_each_span_has_its_kind_and_the_standard_attributes(
    harness: AttemptHarness,  # noqa: F811
    spans: InMemorySpanExporter,  # noqa: F811
) -> None:
    await archived(harness, Queue.LIVE)
    kinds = {span.name: span.kind for span in spans.get_finished_spans()}
    assert {kinds[name] for name in ("look_up", "rate_limit", "unpack", "store", "manifest")} == {SpanKind.INTERNAL}
    assert (kinds["accept"], kinds["attempt"]) == (SpanKind.PRODUCER, SpanKind.CONSUMER)
    assert {kinds[name] for name in ("download", "S3.GetObject", "S3.PutObject")} == {SpanKind.CLIENT}
    download, attempt = attributes_of(named(spans, "download")), attributes_of(named(spans, "attempt"))
    names = ("http.request.method", "http.response.status_code", "server.address")
    assert [download[name] for name in names] == ["GET", 200, "127.0.0.1"]
    assert (attempt["messaging.destination.name"], attempt["messaging.operation.type"]) == ("live", "process")


async def test_a_missing_manifest_is_not_an_error_span(harness: AttemptHarness, spans: InMemorySpanExporter) -> None:  # noqa: F811
    await archived(harness, Queue.LIVE)
    looked_up = [span for span in spans.get_finished_spans() if span.name == "S3.GetObject"]
    assert looked_up
    assert not any(span.status.status_code is StatusCode.ERROR for span in spans.get_finished_spans())


async def test_the_span_of_the_last_attempt_has_the_outcome_the_cause_and_the_run(
    harness: AttemptHarness,  # noqa: F811
    spans: InMemorySpanExporter,  # noqa: F811
) -> None:
    job = await harness.accept_and_lease(Scenario.ERROR_500_ALWAYS)
    await harness.attempt(replace(job, attempts=99))
    attempt = attributes_of(named(spans, "attempt"))
    assert [attempt[f"docv.{name}"] for name in ("outcome", "cause", "run", "account")] == [
        *("failed", "service_failed", "2026-q3", "default"),
    ]


async def test_an_acceptance_is_part_of_the_trace_of_its_message(
    harness: AttemptHarness,  # noqa: F811
    spans: InMemorySpanExporter,  # noqa: F811
) -> None:
    with tracing.process_message(PARENT, queue="live", evaluations=1):
        await archived(harness, Queue.LIVE)
    process = named(spans, "process")
    assert (process.kind, get_parent_id(process)) == (SpanKind.CONSUMER, PARENT_SPAN)
    assert {get_trace_id(span) for span in spans.get_finished_spans()} == {get_trace_id(process)}


@pytest.mark.parametrize("traceparent", INVALID)
async def test_an_invalid_traceparent_begins_a_new_trace(
    harness: AttemptHarness,  # noqa: F811
    spans: InMemorySpanExporter,  # noqa: F811
    traceparent: str,
) -> None:
    job = replace(await harness.accept_and_lease(Scenario.DOCUMENTED), trace=traceparent, queue=Queue.LIVE)
    await harness.attempt(job)
    assert named(spans, "attempt").parent is None


def test_no_trace_is_recorded_without_an_exporter() -> None:
    with tracing.span("store", documents=3), tracing.attempt(None, queue="live", joins_trace=True):
        assert tracing.current_traceparent() is None
    assert "trace" not in options_as_json(EnqueueOptions(Queue.LIVE, "default", Trigger("webhook")), [], listed=False)


def test_opentelemetry_is_not_imported_without_tracing() -> None:
    # redis-py imports it if it is installed, so the image does not contain it.
    code = "import sys, tasks.telemetry.tracing, worker.tracing; sys.exit('opentelemetry' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
