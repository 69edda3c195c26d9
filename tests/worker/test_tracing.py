"""Spans go where OpenTelemetry's own variables say, and nowhere unless the settings ask for it."""

import asyncio
import sys

import pytest
from aiohttp import web

from worker.config.settings import Settings, SettingsError
from worker.tracing import open_tracer


def test_nothing_is_traced_unless_it_is_asked_for() -> None:
    assert open_tracer(Settings()) is None


def test_who_asks_without_the_extra_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(SettingsError, match=r"docv-archive\[tracing\]"):
        open_tracer(Settings(tracing=True))


async def test_spans_arrive_at_the_collector(monkeypatch: pytest.MonkeyPatch) -> None:
    came: list[tuple[str, bytes]] = []

    async def collect(request: web.Request) -> web.Response:
        came.append((request.path, await request.read()))
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
    tracer = open_tracer(Settings(tracing=True))
    assert tracer
    with tracer.start_as_current_span("store"):
        pass
    await asyncio.to_thread(tracer.span_processor.shutdown)  # type: ignore[attr-defined]  # as the process's end does
    await runner.cleanup()
    ((path, body),) = came
    assert path == "/v1/traces"
    assert b"store" in body
    assert b"docv-archive" in body
