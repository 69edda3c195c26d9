"""Thousands of evaluations without documents: each gets the right reason, and none costs an unnecessary request."""

import asyncio
import contextlib
import csv
import io
import json
import re
import urllib.request
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import aiohttp
from pydantic import SecretStr

from scripts.simulator.scenarios import Scenario, eval_id_for
from tasks.queueing.message import MAX_BATCH
from tests.aging import age_queued_evaluations
from tests.commands import Shell
from tests.counting import samples
from tests.faults.cluster import Cluster, Worker, running_cluster
from tests.faults.scale import Scale
from tests.faults.test_webhooks import RiskOS, serve, wait_until_empty
from worker.app import make_publishing_app
from worker.broker.envelope import ARCHIVE_TASK
from worker.config.settings import Settings

_MOST_REQUESTS = 1.05
_EVENT_AT = "2026-01-31T12:00:00Z"
_STEPS = ("SocureKYC", "SocureFraud", "SocureDocRequest")


def make_completed_event(number: int) -> dict[str, object]:
    """Return an event of a workflow in which one evaluation in five has a DocV step."""
    providers = _STEPS if number % 5 == 0 else _STEPS[:2]
    data = {
        "eval_id": eval_id_for(Scenario.PASSPORT, number),
        "environment_name": "Sandbox",
        "data_enrichments": [{"enrichment_provider": each, "response": {}} for each in providers],
    }
    event = {"event_id": f"completed-{number}", "event_type": "evaluation_completed", "event_at": _EVENT_AT}
    return event | {"data": data}


async def test_a_workflow_without_docv_costs_no_requests_even_if_workers_are_killed(
    scale: Scale, figures: Callable[[str], None], tmp_path: Path
) -> None:
    count = 10_000 if scale.long else 500
    settings = {"DOCV_WEBHOOK_SECRETS": "secret-of-the-webhook", "DOCV_SETTLE_SECONDS": "0"}
    async with running_cluster(tmp_path / "stage", **settings) as cluster:
        _, url = await serve(cluster)
        (first,) = await cluster.start_workers(1)
        riskos = RiskOS(url, [make_completed_event(number) for number in range(count)])
        await riskos.deliver_all()
        await cluster.kill(first)
        await cluster.start_workers(1)
        await age_queued_evaluations(cluster.client)
        await wait_until_empty(cluster, 600 if scale.long else 60)
        requests = cluster.riskos.stats().requests
        manifests = [json.loads(path.read_bytes()) for path in cluster.archive.glob("sandbox/*/manifest.json")]
    archived = [each for each in manifests if each["outcome"] == "archived"]
    tombstones = [each for each in manifests if each["outcome"] == "no_documents"]
    figures(
        f"workflow: {count:,} events, {len(archived):,} evaluations archived, {len(tombstones):,} without a DocV step, "
        f"{requests / len(archived):.3f} requests per archived evaluation"
    )
    assert (len(archived), len(tombstones)) == (count // 5, count - count // 5)
    assert {(each["no_documents"]["reason"], each["response"]["status"]) for each in tombstones} == {
        ("no_docv_step", 0)
    }
    assert {each["event_at"] for each in manifests} == {"2026-01-31T12:00:00.000Z"}
    assert requests <= _MOST_REQUESTS * len(archived)


def make_history(count: int) -> tuple[list[str], dict[str, str]]:
    """Return the lines of a list in which 30 % have no documents, and the reason of each of those."""
    lines, reasons = ["Evaluation ID,documentType,Reason Codes,completed"], {}
    for number in range(count):
        kind, codes, reason = "Passport", "I100; I831", ""
        if number % 10 in {3, 6, 9}:
            reason = ("military", "minor", "retention_or_unknown")[number // 10 % 3]
            kind = "MILITARY ID" if reason == "military" else kind
            codes = "I100|R844" if reason == "minor" else codes
        eval_id = eval_id_for(Scenario.NO_DOCUMENTS if reason else Scenario.PASSPORT, number)
        lines.append(f"{eval_id.upper()},{kind},{codes},{_EVENT_AT}")
        if reason:
            reasons[eval_id] = reason
    return lines, reasons


async def test_a_list_with_evidence_gets_every_reason_right_with_one_request_each(
    scale: Scale, figures: Callable[[str], None], tmp_path: Path
) -> None:
    count = 10_000 if scale.long else 300
    lines, reasons = make_history(count)
    async with running_cluster(tmp_path / "stage", DOCV_METRICS_PORT="0") as cluster:
        shell = Shell(cluster.folder, cluster.settings)
        (cluster.folder / "history.csv").write_text("\n".join(lines))
        (worker,) = await cluster.start_workers(1)
        started = await shell.run(
            *("backfill", "history.csv", "--event-at-column", "completed", "--run", "history", "--detach")
        )
        assert started.code == 0, started.err
        explained = sum(reason != "retention_or_unknown" for reason in reasons.values())
        assert f"evidence for missing documents: {explained}\n" in started.err
        await cluster.wait_until_all_ended("history", count, 600)
        requests, metrics = cluster.riskos.stats().requests, await asyncio.to_thread(read_metrics, worker)
        found = [
            {row["eval_id"]: row for row in csv.DictReader(io.StringIO((await shell.run(*command)).out))}
            for command in (("report", "history"), ("audit", "history.csv"))
        ]
        manifest = json.loads((cluster.archive / found[0][next(iter(reasons))]["manifest"]).read_bytes())
        again = await shell.run("backfill", "history.csv", "--run", "again", "--json")
        repeated = cluster.riskos.stats().requests - requests
    expected = Counter(reasons.values())
    figures(f"history: {count:,} evaluations, {dict(expected)}, {requests:,} requests, {repeated} when repeated")
    for rows in found:
        assert {eval_id: row["reason"] for eval_id, row in rows.items() if row["reason"]} == reasons
        assert len(rows) == count
    assert {name: metrics[f'docv_no_documents_total{{reason="{name}"}}'] for name in expected} == expected
    assert metrics['docv_no_documents_total{reason="no_docv_step"}'] == 0
    assert manifest["event_at"] == "2026-01-31T12:00:00.000Z"
    assert (requests, repeated) == (count, 0)
    assert json.loads(again.out)["unchanged_outcomes"]["no_documents"] == len(reasons)


async def test_late_evidence_costs_no_request_from_any_source(
    scale: Scale, figures: Callable[[str], None], tmp_path: Path
) -> None:
    each = 500 if scale.long else 20
    ids = [eval_id_for(Scenario.NO_DOCUMENTS, number) for number in range(4 * each)]
    by_file, by_http, by_event, by_message = (ids[start : start + each] for start in range(0, len(ids), each))
    settings = {"DOCV_WEBHOOK_SECRETS": "secret-of-the-webhook", "DOCV_INTAKE_TOKENS": "token-of-a-producer"}
    async with running_cluster(tmp_path / "stage", DOCV_SETTLE_SECONDS="0", **settings) as cluster:
        shell = Shell(cluster.folder, cluster.settings)
        _, url = await serve(cluster)
        await cluster.start_workers(1)
        (cluster.folder / "ids.txt").write_text("\n".join(ids))
        assert (await shell.run("backfill", "ids.txt", "--accept-refusals")).code == 0
        requests = cluster.riskos.stats().requests

        (cluster.folder / "known.csv").write_text(
            "\n".join(["id,a,b", *(f"{eval_id},Military,x" for eval_id in by_file)])
        )
        columns = ("--evidence-columns", "document_type=a,reason_codes=b")
        assert (await shell.run("backfill", "known.csv", *columns)).code == 0
        await submit(url.replace("/webhooks/riskos", "/evaluations"), by_http)
        await RiskOS(url, [make_underage_event(eval_id) for eval_id in by_event]).deliver_all()
        send(cluster, by_message)
        await cluster.wait_until(lambda: not count_reasons(cluster, ids)["retention_or_unknown"], 300)
        await wait_until_empty(cluster, 60)
        found = [count_reasons(cluster, some) for some in (by_file, by_http, by_event, by_message)]
        requests_since = cluster.riskos.stats().requests - requests
    figures(f"late evidence: {len(ids):,} manifests without documents got their reason, {requests_since} requests")
    assert found == [{"military": each}, {"minor": each}, {"minor": each}, {"military": each}]
    assert requests_since == 0


def make_underage_event(eval_id: str) -> dict[str, object]:
    """Return an event of a DocV step that found a person under 18."""
    result = {"documentVerification": {"reasonCodes": ["I831", "R844"]}}
    steps = [{"enrichment_provider": "SocureDocRequest", "response": result}]
    data = {"eval_id": eval_id, "environment_name": "Sandbox", "data_enrichments": steps}
    return {"event_id": f"late-{eval_id}-0", "event_type": "evaluation_completed", "data": data}


async def submit(url: str, eval_ids: Sequence[str]) -> None:
    """Submit evaluations of persons under 18 over HTTP, with that evidence."""
    body = {"eval_ids": eval_ids, "evidence": {eval_id: {"reason_codes": ["R844"]} for eval_id in eval_ids}}
    headers = {"Authorization": "Bearer token-of-a-producer"}
    async with aiohttp.ClientSession(headers=headers) as session, session.post(url, json=body) as answer:
        assert answer.status == 202, await answer.text()


def send(cluster: Cluster, eval_ids: Sequence[str]) -> None:
    """Send messages about evaluations with military IDs, with that evidence, as a producer with Celery does."""
    with contextlib.closing(make_publishing_app(Settings(redis_url=SecretStr(cluster.redis.url)))) as app:
        for start in range(0, len(eval_ids), MAX_BATCH):
            some = list(eval_ids[start : start + MAX_BATCH])
            evidence = {eval_id: {"document_type": "Military ID"} for eval_id in some}
            app.send_task(ARCHIVE_TASK, kwargs={"eval_ids": some, "evidence": evidence}, queue="live")


def count_reasons(cluster: Cluster, eval_ids: Sequence[str]) -> Counter[str]:
    """Count the reasons in the manifests of evaluations."""
    paths = (cluster.archive / "sandbox" / eval_id / "manifest.json" for eval_id in eval_ids)
    return Counter(json.loads(path.read_bytes())["no_documents"]["reason"] for path in paths)


def read_metrics(worker: Worker) -> Mapping[str, float]:
    """Return the metrics of a worker; their address is in its log."""
    found = re.search(rb'http://[^"]+', worker.beginning[worker.beginning.index(b"metrics.started") - 200 :])
    assert found
    with urllib.request.urlopen(f"{found[0].decode()}/metrics", timeout=10) as page:  # noqa: S310  # our own
        return samples(page.read().decode())
