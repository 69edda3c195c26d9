"""Read metrics from the registry, with the real label values."""

from typing import Any

from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from scripts.serve.metrics import HttpMetrics
from tasks.model.job import Queue
from tasks.model.outcome import NoDocumentsReason, Outcome
from tasks.resilience.retry import CAUSES
from worker.metrics.shared_metrics import SharedGauge
from worker.metrics.worker_metrics import REGISTRY, preset_labels


class MetricGrowth:
    """The growth of the metrics of this process since this object was made."""

    def __init__(self) -> None:
        preset_labels(outcomes=tuple(Outcome), queues=tuple(Queue), causes=CAUSES, reasons=tuple(NoDocumentsReason))
        self._before = current()

    def __getitem__(self, series: str) -> float:
        """Return by how much a series has grown; it must exist.

        Args:
            series: such as ``docv_evaluations_total{outcome="archived",queue="live"}``.
        """
        return current()[series] - self._before.get(series, 0.0)


def current() -> dict[str, float]:
    """Return every sample of this process by its series."""
    return {series: value for family in REGISTRY.collect() for series, value in _samples_of(family)}


def samples(page: str) -> dict[str, float]:
    """Return every sample of a page by its series, written as Prometheus does: ``name{label="value"}``."""
    return {series: value for family in text_string_to_metric_families(page) for series, value in _samples_of(family)}


def described() -> dict[str, tuple[str, tuple[str, ...], str]]:
    """Return every metric of workers and of ``serve`` with its type, labels and help."""
    ours = [*REGISTRY._collector_to_names, *HttpMetrics()._registry._collector_to_names]
    found = {
        _name(each): (each._type, each._labelnames, each._documentation) for each in ours if hasattr(each, "_type")
    }
    return found | {each.metric_name: ("gauge", each.labels, each.help_text) for each in SharedGauge}


def _samples_of(family: Metric) -> list[tuple[str, float]]:
    return [(sample.name + _labels(sample.labels), sample.value) for sample in family.samples]


def _name(metric: Any) -> str:
    return str(metric._name) + "_total" * (metric._type == "counter")


def _labels(labels: dict[str, str]) -> str:
    return "{" + ",".join(f'{name}="{value}"' for name, value in labels.items()) + "}" if labels else ""
