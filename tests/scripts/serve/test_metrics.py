"""The figures say how it goes, and name nobody."""

from uuid import uuid4

from prometheus_client.parser import text_string_to_metric_families

from tests.counting import samples
from tests.scripts.serve.conftest import Client, event


async def test_requests_are_counted_by_route_and_class_of_status(client: Client, eval_id: str) -> None:
    await client.deliver(event(eval_id))
    await client.look_up(str(uuid4()))
    for path in (f"/{eval_id}", "/wp-login.php", f"/webhooks/{eval_id}"):
        await client.send("GET", path)
    figures = await client.figures()
    assert 'docv_http_requests_total{route="/webhooks/riskos",status="2xx"} 1.0' in figures
    assert 'docv_http_requests_total{route="/evaluations/{eval_id}",status="4xx"} 1.0' in figures
    assert 'docv_http_requests_total{route="unknown",status="4xx"} 3.0' in figures
    assert 'docv_http_request_seconds_count{route="/webhooks/riskos"} 1.0' in figures
    assert eval_id not in figures
    assert "wp-login" not in figures


async def test_every_figure_is_there_from_the_start_and_has_our_prefix(client: Client) -> None:
    families = list(text_string_to_metric_families(await client.figures()))
    assert all(family.name.startswith("docv_") and family.documentation for family in families)
    results = {sample.labels["result"] for family in families for sample in family.samples if "result" in sample.labels}
    assert {"accepted", "repeated", "ignored_type", "test_ping", "unusable", "refused_login", "bad"} <= results


async def test_what_all_processes_share_is_shown_too(client: Client, eval_id: str) -> None:
    await client.deliver(event(eval_id))
    found = samples(await client.figures())
    assert found["docv_redis_up"] == 1
    assert found['docv_ledger_evaluations{state="queued"}'] == 1
    assert found['docv_queue_workers{queue="live"}'] == 0
    assert found['docv_quota_left_requests{account="default"}'] == 1_000
