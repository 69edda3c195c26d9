"""A worker's figures as tests need them: with the real words, and read as Prometheus reads them."""

from typing import Any

from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from scripts.serve.metrics import HttpMetrics
from tasks.model.job import Queue
from tasks.model.outcome import Outcome
from tasks.telemetry.metrics import CAUSES, Step
from worker.metrics.shared_metrics import SHARED, UP
from worker.metrics.worker_metrics import LabelValues, WorkerMetrics

WORDS = LabelValues(outcomes=tuple(Outcome), queues=tuple(Queue), causes=CAUSES, steps=tuple(Step))


def figures(stalled: str | None = None) -> WorkerMetrics:
    """The figures of a worker that has done nothing yet."""
    return WorkerMetrics(WORDS, lambda: stalled)


def samples(page: str) -> dict[str, float]:
    """Every sample of a page, by name and labels as Prometheus writes them: ``name{label="value"}``."""
    return {
        sample.name + _labels(sample.labels): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


def counted(of: WorkerMetrics) -> dict[str, float]:
    """Every sample of a worker's figures."""
    return samples(generate_latest(of.registry).decode())


def described() -> dict[str, tuple[str, tuple[str, ...], str]]:
    """Every figure of ours, of workers and doors, with its type, its labels and what it is."""
    worker = figures()
    worker.watch(int, int)
    ours = [*worker.registry._collector_to_names, *HttpMetrics()._registry._collector_to_names]
    told = {_name(each): (each._type, each._labelnames, each._documentation) for each in ours if hasattr(each, "_type")}
    shared = {name: ("gauge", labels, what) for name, (what, labels) in SHARED.items()}
    return told | shared | {"docv_redis_up": ("gauge", (), UP)}


def _name(metric: Any) -> str:
    return str(metric._name) + "_total" * (metric._type == "counter")


def _labels(labels: dict[str, str]) -> str:
    return "{" + ",".join(f'{name}="{value}"' for name, value in labels.items()) + "}" if labels else ""
