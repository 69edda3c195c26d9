"""What a worker counts: names as Prometheus wants them, and no more series whatever happens."""

import re
import subprocess
from uuid import uuid4

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from tasks.model.outcome import Outcome
from tasks.telemetry.metrics import CAUSES
from tests.counting import counted, figures
from worker.metrics.worker_metrics import WorkerMetrics


def busy(worker: WorkerMetrics, times: int) -> None:
    """Have everything happen, with words that nobody foresaw among those that are known."""
    for number in range(times):
        odd = str(uuid4())
        for status in (200, 400, 429, 503, 999, None, number):
            worker.answered(status, 1_000)
        for cause in (*CAUSES, f"fault_{odd}"):
            worker.stopped(cause)
            worker.buried(cause)
        for outcome in (*Outcome, odd):
            worker.ended(outcome, "live")
            worker.ended(outcome, odd)
        worker.took(odd, number)
        worker.took("rate_limit", number)
        worker.uploaded(number)
        worker.lagged(number)
        worker.was_late(number)


def test_what_happened_is_counted() -> None:
    worker = figures()
    worker.ended(Outcome.ARCHIVED, "live")
    worker.answered(200, 700_000)
    worker.answered(429, 0)
    worker.answered(None, 0)
    worker.uploaded(600_000)
    worker.stopped("service_failed")
    worker.stopped("fault_KeyError")
    worker.buried("bundle_too_large")
    worker.took("download", 0.3)
    worker.lagged(16.0)
    found = counted(worker)
    assert found['docv_evaluations_total{outcome="archived",queue="live"}'] == 1
    assert [found[f'docv_riskos_requests_total{{status="{status}"}}'] for status in ("2xx", "429", "4xx", "none")] == [
        *(1, 1, 0, 1)
    ]
    assert (found["docv_downloaded_bytes_total"], found["docv_uploaded_bytes_total"]) == (700_000, 600_000)
    assert found['docv_attempts_failed_total{cause="service_failed"}'] == 1
    assert found['docv_attempts_failed_total{cause="other"}'] == 1
    assert found['docv_dead_letters_created_total{cause="bundle_too_large"}'] == 1
    assert found['docv_step_seconds_sum{step="download"}'] == pytest.approx(0.3)
    assert found['docv_live_lag_seconds_bucket{le="20.0"}'] == 1


def test_the_number_of_series_is_bounded_whatever_happens() -> None:
    worker = figures()
    worker.watch(lambda: 1, lambda: 2)
    busy(worker, 1)
    series = counted(worker).keys()
    busy(worker, 50)
    assert counted(worker).keys() == series
    assert len(series) < 400
    assert not re.search(r"[0-9a-f]{8}-[0-9a-f]{4}", str(series))


def test_every_figure_is_there_from_the_start() -> None:
    worker = figures()
    worker.watch(lambda: 1, lambda: 2)
    before = counted(worker).keys()
    busy(worker, 1)
    # What nobody has a word for comes with its first time.
    assert all('="other"' in name for name in counted(worker).keys() - before)


def test_what_goes_up_and_down_is_looked_at_with_each_scrape() -> None:
    in_flight = [3]
    worker = figures(stalled="it has not moved")
    worker.watch(lambda: in_flight[0], lambda: 4_096)
    assert counted(worker)["docv_in_flight_evaluations"] == 3
    in_flight[0] = 5
    found = counted(worker)
    assert (found["docv_in_flight_evaluations"], found["docv_spool_bytes"]) == (5, 4_096)
    assert found["docv_worker_stalled"] == 1
    assert counted(figures())["docv_worker_stalled"] == 0


def test_names_have_our_prefix_and_a_sentence() -> None:
    worker = figures()
    for family in text_string_to_metric_families(generate_latest(worker.registry).decode()):
        assert family.name.startswith(("docv_", "process_", "python_"))
        assert family.documentation
        assert not re.search(r"_(ms|millis|milliseconds|kb|mb|minutes|count)\b", family.name)


@pytest.mark.needs("promtool")
def test_promtool_finds_nothing_to_mend_in_our_names() -> None:
    worker = figures()
    worker.watch(lambda: 1, lambda: 2)
    page = "\n".join(
        line for line in generate_latest(worker.registry).decode().splitlines() if "python_info" not in line
    )
    checked = subprocess.run(
        ["promtool", "check", "metrics"],  # noqa: S607  # wherever it is
        input=page + "\n",
        text=True,
        capture_output=True,
        check=False,
    )
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")
