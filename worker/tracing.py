"""Send what was traced to the operator's collector, where the settings ask for it; else nothing is even imported."""

import os
from typing import TYPE_CHECKING

from worker.config.settings import Settings, SettingsError

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

_NAME = "docv-archive"


def open_tracer(settings: Settings) -> "Tracer | None":
    """Return what makes spans, or None where nobody wants them.

    Where they go to is said by OpenTelemetry's own variables, ``OTEL_EXPORTER_OTLP_ENDPOINT`` first of all. What is not
    sent yet is when the process ends in order.

    Raises:
        SettingsError: the extra is not installed.
    """
    if not settings.tracing:
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    except ModuleNotFoundError:
        raise SettingsError(("DOCV_TRACING needs an extra: pip install 'docv-archive[tracing]'",)) from None
    resource = Resource.create({"service.name": os.environ.get("OTEL_SERVICE_NAME", _NAME)})
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider.get_tracer(_NAME)
