"""The metrics describe the requests, without personal data."""

from importlib.metadata import version
from uuid import uuid4

from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from scripts.serve.metrics import HttpMetrics
from tests.counting import samples
from tests.scripts.serve.conftest import Client, event


async def test_requests_are_counted_by_route_and_status_class(client: Client, eval_id: str) -> None:
    await client.deliver(event(eval_id))
    await client.look_up(str(uuid4()))
    for path in (f"/{eval_id}", "/wp-login.php", f"/webhooks/{eval_id}"):
        await client.send("GET", path)
    metrics = await client.metrics()
    assert 'docv_http_requests_total{route="/webhooks/riskos",status="2xx"} 1.0' in metrics
    assert 'docv_http_requests_total{route="/evaluations/{eval_id}",status="4xx"} 1.0' in metrics
    assert 'docv_http_requests_total{route="unknown",status="4xx"} 3.0' in metrics
    assert 'docv_http_request_seconds_count{route="/webhooks/riskos"} 1.0' in metrics
    assert eval_id not in metrics
    assert "wp-login" not in metrics


async def test_every_metric_exists_from_the_start_and_has_the_prefix(client: Client) -> None:
    families = list(text_string_to_metric_families(await client.metrics()))
    assert all(family.name.startswith("docv_") and family.documentation for family in families)
    results = {sample.labels["result"] for family in families for sample in family.samples if "result" in sample.labels}
    assert {"accepted", "repeated", "ignored_type", "test_ping", "unusable", "refused_login", "bad"} <= results


def test_503_is_counted_separately_from_other_errors() -> None:
    metrics = HttpMetrics()
    metrics.preset_routes(["/evaluations"])
    for status in (500, 502, 503):
        metrics.observe_request("/evaluations", status, 0.0)
    found = samples(generate_latest(metrics._registry).decode())
    assert found['docv_http_requests_total{route="/evaluations",status="5xx"}'] == 2
    assert found['docv_http_requests_total{route="/evaluations",status="503"}'] == 1


async def test_errors_of_every_route_start_at_zero_and_the_version_is_exposed(client: Client) -> None:
    found = samples(await client.metrics())
    for route in ("/evaluations", "/webhooks/riskos/{account}", "/"):
        for status in ("5xx", "503"):
            assert found[f'docv_http_requests_total{{route="{route}",status="{status}"}}'] == 0
    assert found[f'docv_build_info{{version="{version("docv-archive")}"}}'] == 1


async def test_metrics_shared_by_all_processes_are_included(client: Client, eval_id: str) -> None:
    await client.deliver(event(eval_id))
    found = samples(await client.metrics())
    assert found["docv_redis_up"] == 1
    assert found['docv_ledger_evaluations{state="queued"}'] == 1
    assert found['docv_queue_workers{queue="live"}'] == 0
    assert found['docv_quota_left_requests{account="default"}'] == 1_000
