"""The metrics of a worker follow Prometheus's naming rules, and have a bounded number of series."""

import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from uuid import uuid4

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from tasks.model.outcome import NoDocumentsReason, Outcome
from tasks.resilience.retry import CAUSES
from tests.counting import MetricGrowth, current
from worker.metrics.worker_metrics import (
    IN_FLIGHT,
    REGISTRY,
    SPOOLED,
    STALLED,
    Step,
    count_dead_letter,
    count_failed_attempt,
    count_no_documents,
    count_outcome,
    count_request,
    count_uploaded,
    observe_live_lag,
    observe_loop_lag,
    observe_step,
)

ROOT = Path(__file__).parents[3]


def count_everything(times: int) -> None:
    """Count with every known label value, and with unknown ones."""
    for number in range(times):
        unknown = str(uuid4())
        for status in (200, 400, 429, 503, 999, None, number):
            count_request(status, 1_000)
        for cause in (*CAUSES, f"fault_{unknown}"):
            count_failed_attempt(cause)
            count_dead_letter(cause)
        for outcome in (*Outcome, unknown):
            count_outcome(outcome, "live")
            count_outcome(outcome, unknown)
        for reason in (*NoDocumentsReason, unknown):
            count_no_documents(reason)
        for step in Step:
            observe_step(step, number)
        count_uploaded(number)
        observe_live_lag(number)
        observe_loop_lag(number)


def test_each_function_counts_in_its_own_metric(counted: MetricGrowth) -> None:
    count_outcome(Outcome.ARCHIVED, "live")
    count_request(200, 700_000)
    count_request(429, 0)
    count_request(None, 0)
    count_uploaded(600_000)
    count_failed_attempt("service_failed")
    count_failed_attempt("fault_KeyError")
    count_dead_letter("bundle_too_large")
    count_no_documents("military")
    observe_step(Step.DOWNLOAD, 0.3)
    observe_live_lag(16.0)
    observe_loop_lag(0.002)
    assert counted['docv_evaluations_total{outcome="archived",queue="live"}'] == 1
    assert [
        counted[f'docv_riskos_requests_total{{status="{status}"}}'] for status in ("2xx", "429", "4xx", "none")
    ] == [*(1, 1, 0, 1)]
    assert (counted["docv_downloaded_bytes_total"], counted["docv_uploaded_bytes_total"]) == (700_000, 600_000)
    assert counted['docv_attempts_failed_total{cause="service_failed"}'] == 1
    assert counted['docv_attempts_failed_total{cause="other"}'] == 1
    assert counted['docv_dead_letters_created_total{cause="bundle_too_large"}'] == 1
    assert counted['docv_no_documents_total{reason="military"}'] == 1
    assert counted['docv_step_seconds_sum{step="download"}'] == pytest.approx(0.3)
    assert (counted['docv_live_lag_seconds_bucket{le="10.0"}'], counted['docv_live_lag_seconds_bucket{le="20.0"}']) == (
        *(0, 1),
    )
    assert counted['docv_event_loop_lag_seconds_bucket{le="0.005"}'] == 1


@pytest.mark.usefixtures("counted")
def test_the_number_of_series_is_bounded() -> None:
    count_everything(1)
    series = current().keys()
    count_everything(50)
    assert current().keys() == series
    assert len(series) < 400
    assert not re.search(r"[0-9a-f]{8}-[0-9a-f]{4}", str(series))


def test_every_series_exists_before_its_first_event() -> None:
    code = """
from tasks.resilience.retry import CAUSES
from tasks.model.job import Queue
from tasks.model.outcome import NoDocumentsReason, Outcome
from tests.counting import current
from tests.worker.metrics.test_worker_metrics import count_everything
from worker.metrics.worker_metrics import preset_labels

preset_labels(outcomes=tuple(Outcome), queues=tuple(Queue), causes=CAUSES, reasons=tuple(NoDocumentsReason))
before = current().keys()
count_everything(1)
print(sorted(series for series in current().keys() - before if '="other"' not in series))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr


def test_gauges_are_read_at_each_scrape() -> None:
    in_flight = [3]
    IN_FLIGHT.set_function(lambda: in_flight[0])
    SPOOLED.set_function(lambda: 4_096)
    STALLED.set_function(lambda: len(in_flight) > 1)
    assert (current()["docv_in_flight_evaluations"], current()["docv_worker_stalled"]) == (3, 0)
    in_flight[:] = [5, 5]
    found = current()
    assert (found["docv_in_flight_evaluations"], found["docv_spool_bytes"], found["docv_worker_stalled"]) == (
        *(5, 4_096, 1),
    )


def test_build_info_has_the_version_as_a_label() -> None:
    assert current()[f'docv_build_info{{version="{version("docv-archive")}"}}'] == 1


def test_metrics_have_our_prefix_and_a_help_sentence() -> None:
    for family in text_string_to_metric_families(generate_latest(REGISTRY).decode()):
        assert family.name.startswith(("docv_", "process_", "python_"))
        assert family.documentation
        assert not re.search(r"_(ms|millis|milliseconds|kb|mb|minutes|count)\b", family.name)


@pytest.mark.needs("promtool")
def test_promtool_accepts_the_names() -> None:
    page = "\n".join(line for line in generate_latest(REGISTRY).decode().splitlines() if "python_info" not in line)
    checked = subprocess.run(
        ["promtool", "check", "metrics"],  # noqa: S607  # from the PATH
        input=page + "\n",
        text=True,
        capture_output=True,
        check=False,
    )
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")
