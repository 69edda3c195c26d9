"""Each answered request is a span in the trace of its caller."""

from uuid import uuid4

import pytest
from aiohttp import web
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from redis.asyncio import Redis

from scripts.serve.request_tracing import trace_request
from tests.scripts.serve.conftest import TOKEN, event, running_client
from tests.spans import (  # noqa: F401  # a fixture
    INVALID,
    PARENT,
    PARENT_SPAN,
    PARENT_TRACE,
    attributes_of,
    get_parent_id,
    get_trace_id,
    named,
    spans,
)
from worker.config.settings import Settings


async def test_submitted_ids_join_the_trace_of_the_caller(
    settings: Settings,
    redis: Redis,
    spans: InMemorySpanExporter,  # noqa: F811
) -> None:
    eval_id = str(uuid4())
    async with running_client(settings) as client:
        assert (await client.submit({"eval_ids": [eval_id]}, traceparent=PARENT)).status == 202
    request, accept = named(spans, "POST /evaluations"), named(spans, "accept")
    assert (request.kind, get_parent_id(request)) == (SpanKind.SERVER, PARENT_SPAN)
    assert request.context
    assert get_parent_id(accept) == request.context.span_id
    assert attributes_of(request) == {
        "http.request.method": "POST",
        "http.route": "/evaluations",
        "url.scheme": "http",
        "http.response.status_code": 202,
    }
    entry = await redis.hget("docv:ledger:entries", eval_id)
    assert f"{PARENT_TRACE:032x}" in str(entry)


async def test_an_event_joins_the_trace_of_the_caller(settings: Settings, spans: InMemorySpanExporter) -> None:  # noqa: F811
    async with running_client(settings) as client:
        assert (await client.deliver(event(), traceparent=PARENT)).status == 200
    assert {get_trace_id(span) for span in spans.get_finished_spans()} == {PARENT_TRACE}
    assert named(spans, "POST /webhooks/riskos").kind is SpanKind.SERVER


@pytest.mark.parametrize("traceparent", INVALID)
async def test_a_new_trace_begins_when_the_traceparent_is_invalid(
    settings: Settings,
    spans: InMemorySpanExporter,  # noqa: F811
    traceparent: str,
) -> None:
    async with running_client(settings) as client:
        assert (await client.deliver(event(), traceparent=traceparent)).status == 200
    assert get_parent_id(named(spans, "POST /webhooks/riskos")) is None


async def test_probes_are_not_traced_and_an_unknown_path_is_not_recorded(
    settings: Settings,
    spans: InMemorySpanExporter,  # noqa: F811
) -> None:
    async with running_client(settings) as client:
        await client.send("GET", "/livez")
        await client.send("GET", "/erika-mustermann", Authorization=f"Bearer {TOKEN}")
        await client.send("PROPFIND", "/evaluations")
    found = spans.get_finished_spans()
    assert [span.name for span in found] == ["GET", "HTTP"]
    assert "mustermann" not in "".join(span.to_json() for span in found)
    assert not any(span.status.status_code is StatusCode.ERROR for span in found)


async def test_an_answer_of_5xx_is_recorded_as_an_error(settings: Settings, spans: InMemorySpanExporter) -> None:  # noqa: F811
    async def fail(_: web.Request) -> web.Response:
        return web.Response(status=503)

    application = web.Application(middlewares=[trace_request])
    application.router.add_get("/", fail)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    async with running_client(settings) as client:
        client.url = f"http://{host}:{port}"
        assert (await client.send("GET", "/")).status == 503
    await runner.cleanup()
    failed = named(spans, "GET /")
    assert (failed.status.status_code, attributes_of(failed)["error.type"]) == (StatusCode.ERROR, "503")
