"""Spans are sent to the collector in OpenTelemetry's variables, and only if the settings enable tracing."""

import asyncio
import sys
from importlib.metadata import version

import pytest
from aiohttp import web

from worker.config.settings import Settings, SettingsError
from worker.tracing import open_tracer


def test_tracing_is_off_without_the_setting() -> None:
    assert open_tracer(Settings()) is None


def test_tracing_without_the_extra_is_an_error_that_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(SettingsError, match=r"uv tool install --force '\.\[tracing\]'"):
        open_tracer(Settings(tracing=True))


@pytest.mark.parametrize(
    "variables",
    [{"OTEL_SERVICE_NAME": "archive"}, {"OTEL_RESOURCE_ATTRIBUTES": "service.name=archive"}],
    ids=lambda variables: next(iter(variables)),
)
def test_opentelemetry_s_variables_set_the_service_name(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    tracer = open_tracer(Settings(tracing=True))
    assert tracer
    tracer.span_processor.shutdown()  # type: ignore[attr-defined]
    assert tracer.resource.attributes["service.name"] == "archive"  # type: ignore[attr-defined]


async def test_spans_arrive_at_the_collector(monkeypatch: pytest.MonkeyPatch) -> None:
    received: list[tuple[str, bytes]] = []

    async def collect(request: web.Request) -> web.Response:
        received.append((request.path, await request.read()))
        return web.Response()

    collector = web.Application()
    collector.router.add_post("/v1/traces", collect)
    runner = web.AppRunner(collector)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://{host}:{port}")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "none")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=staging")
    tracer = open_tracer(Settings(tracing=True))
    assert tracer
    resource = tracer.resource.attributes  # type: ignore[attr-defined]
    assert (resource["service.name"], resource["service.version"]) == ("docv-archive", version("docv-archive"))
    assert resource["deployment.environment.name"] == "staging"
    with tracer.start_as_current_span("store"):
        pass
    await asyncio.to_thread(tracer.span_processor.shutdown)  # type: ignore[attr-defined]  # as at the end of the process
    await runner.cleanup()
    ((path, body),) = received
    assert path == "/v1/traces"
    assert b"store" in body
    assert b"docv-archive" in body
