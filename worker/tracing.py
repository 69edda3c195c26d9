"""Send spans to the operator's collector if the settings say so. Otherwise OpenTelemetry is not imported."""

from importlib.metadata import version
from typing import TYPE_CHECKING

from worker.config.extras import explain_extra
from worker.config.settings import Settings, SettingsError

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

_NAME = "docv-archive"


def open_tracer(settings: Settings) -> "Tracer | None":
    """Return a tracer, or None if tracing is off.

    OpenTelemetry's own variables configure the exporter, mainly ``OTEL_EXPORTER_OTLP_ENDPOINT``. The remaining spans
    are sent when the process exits normally.

    Raises:
        SettingsError: the extra is not installed.
    """
    if not settings.tracing:
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    except ModuleNotFoundError:
        raise SettingsError((f"DOCV_TRACING needs OpenTelemetry: {explain_extra('tracing')}",)) from None
    release = version(_NAME)
    resource = Resource.create({"service.name": _NAME, "service.version": release})
    # OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES take precedence over these values.
    provider = TracerProvider(resource=resource.merge(OTELResourceDetector().detect()))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider.get_tracer(_NAME, release)
