"""`GET /evaluations/{eval_id}` reports from the ledger and the archive, without names from a bundle."""

import asyncio
import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from tasks.ledger.ledger import Ledger
from tasks.model.job import EnqueueOptions, Failure, Job, Queue, Trigger
from tasks.storage.manifest_records import DocumentRecord
from tests.disposals import disposed_of
from tests.scripts.serve.conftest import INTAKE, OPERATOR, VIEWER, Client, basic
from worker.config.settings import Settings

NAME = "canary-name.jpg"


def manifest(eval_id: str, **changes: Any) -> dict[str, Any]:
    document = {
        "name": NAME,
        "kind": "document_front",
        "key": f"sandbox/{eval_id}/document_front/{'a' * 64}.jpg",
        "media_type": "image/jpeg",
        "size": 1_000,
        "sha256": "a" * 64,
        "modified": None,
    }
    facts = {
        "schema": 1,
        "eval_id": eval_id,
        "environment": "sandbox",
        "account": "default",
        "outcome": "archived",
        "revision": 1,
        "previous": None,
        "documents": [document, document | {"size": 50}, document | {"size": 7, "superseded": True}],
        "bundle": None,
        "response": {"status": 200, "message": None},
        "no_documents": None,
        "trigger": {"source": "run", "run": None, "event_type": None, "event_id": None},
        "retrieved_at": "2026-01-01T00:00:00.000Z",
        "archived_at": "2026-01-01T00:00:01.000Z",
        "archiver": "docv-archive 0.1.0",
    }
    return facts | changes


def write_manifest(path: Path, text: str) -> None:
    path.write_text(text, "utf-8")


@pytest.fixture
def manifest_path(settings: Settings, eval_id: str) -> Path:
    """Return the path of the evaluation's manifest."""
    path = Path(settings.archive_url.removeprefix("file://")) / "sandbox" / eval_id / "manifest.json"
    path.parent.mkdir(parents=True)
    return path


async def test_a_manifest_is_summarized(client: Client, manifest_path: Path, eval_id: str) -> None:
    write_manifest(manifest_path, json.dumps(manifest(eval_id)))
    answer = await client.look_up(eval_id.upper())
    assert (answer.status, answer.json) == (
        200,
        {
            "eval_id": eval_id,
            "state": "ended",
            "outcome": "archived",
            "cause": None,
            "reason": None,
            "restricted": None,
            "next_attempt_at": None,
            "documents": 3,
            "bytes": 1_057,
            "at_source": "unknown",
            "manifest": f"sandbox/{eval_id}/manifest.json",
            "disposed": 0,
        },
    )
    assert NAME not in answer.body.decode()


async def test_an_evaluation_is_missing_when_neither_ledger_nor_archive_has_it(client: Client, eval_id: str) -> None:
    answer = await client.look_up(eval_id)
    assert answer.status == 404
    nothing = dict.fromkeys(("state", "cause", "reason", "restricted", "next_attempt_at", "at_source", "manifest"))
    counts = {"documents": 0, "bytes": 0, "disposed": 0}
    assert answer.json == {"eval_id": eval_id, "outcome": "missing"} | counts | nothing


@pytest.mark.parametrize("status", ["present", "partly_gone", "gone", "none", "unknown"])
async def test_the_state_at_riskos_is_shown_next_to_the_documents_held(
    client: Client, manifest_path: Path, eval_id: str, status: str
) -> None:
    source = {"status": status, "asked_at": "2026-01-01T00:00:00.000Z", "response": {"status": 200, "message": None}}
    write_manifest(manifest_path, json.dumps(manifest(eval_id, source=source)))
    answer = await client.look_up(eval_id)
    assert (answer.json["outcome"], answer.json["documents"], answer.json["at_source"]) == ("archived", 3, status)


@pytest.mark.parametrize("outcome", ["no_documents", "not_found", "rejected"])
async def test_an_older_manifest_still_reports_the_documents_held(
    client: Client, manifest_path: Path, eval_id: str, outcome: str
) -> None:
    write_manifest(manifest_path, json.dumps(manifest(eval_id, outcome=outcome)))
    answer = await client.look_up(eval_id)
    assert (answer.json["outcome"], answer.json["documents"], answer.json["at_source"]) == ("archived", 3, "unknown")


async def accept(ledger: Ledger, eval_id: str, *, queue: Queue = Queue.LIVE, delay: float = 0.0) -> None:
    await ledger.accept([eval_id], EnqueueOptions(queue, "default", Trigger("intake"), delay=delay))


async def lease(ledger: Ledger, eval_id: str) -> Job:
    (job,) = await ledger.lease([eval_id], token="one")
    return job


async def test_an_accepted_evaluation_has_a_state_immediately(client: Client, redis: Redis, eval_id: str) -> None:
    assert (await client.submit({"eval_ids": [eval_id]})).status == 202
    answer = await client.look_up(eval_id)
    assert (answer.status, answer.json["state"], answer.json["outcome"]) == (200, "queued", None)
    job = await lease(Ledger(redis), eval_id)
    assert (await client.look_up(eval_id)).json["state"] == "in_flight"
    await Ledger(redis).retry_later(job, wait=90, attempts=1, failure=Failure("service_failed"))
    answer = await client.look_up(eval_id)
    facts = {name: answer.json[name] for name in ("state", "outcome", "cause", "manifest")}
    assert (answer.status, facts) == (
        200,
        {"state": "parked", "outcome": None, "cause": "service_failed", "manifest": None},
    )
    due = datetime.fromisoformat(answer.json["next_attempt_at"])
    assert answer.json["next_attempt_at"].endswith("Z")
    assert (due - datetime.now(UTC)).total_seconds() == pytest.approx(90, abs=20)


async def test_a_dead_letter_is_reported_with_its_cause(client: Client, redis: Redis, eval_id: str) -> None:
    ledger = Ledger(redis)
    await accept(ledger, eval_id)
    await ledger.dead_letter(await lease(ledger, eval_id), attempts=6, failure=Failure("forbidden", status=403))
    answer = await client.look_up(eval_id)
    facts = {name: answer.json[name] for name in ("state", "outcome", "cause", "next_attempt_at")}
    assert (answer.status, facts) == (
        200,
        {"state": "dead_letter", "outcome": "failed", "cause": "forbidden", "next_attempt_at": None},
    )


async def test_disposed_documents_are_counted_and_legal_holds_are_hidden_from_producers(
    client: Client, manifest_path: Path, eval_id: str
) -> None:
    documents = manifest(eval_id)["documents"]
    gone = [disposed_of(DocumentRecord(**each)).model_dump(mode="json") for each in documents]
    write_manifest(
        manifest_path,
        json.dumps(manifest(eval_id, documents=documents[:1], disposed=gone[1:], matters=["acme-v-bolt"])),
    )
    answer = await client.look_up(eval_id)
    assert [answer.json[name] for name in ("outcome", "documents", "disposed")] == ["archived", 1, 2]
    assert "acme-v-bolt" not in answer.body.decode()
    for authorization, can_see in ((basic(OPERATOR), True), (basic(VIEWER), True), (f"Bearer {INTAKE}", False)):
        page = await client.send("GET", f"/page/evaluation?id={eval_id}", Authorization=authorization)
        assert ("acme-v-bolt" in page.body.decode()) is can_see
    write_manifest(manifest_path, json.dumps(manifest(eval_id, documents=[], disposed=gone)))
    answer = await client.look_up(eval_id)
    counts = [answer.json[name] for name in ("state", "outcome", "documents", "disposed")]
    assert (answer.status, counts) == (200, ["ended", "disposed", 0, 3])
    assert NAME not in answer.body.decode()


async def test_an_erased_evaluation_is_reported_as_erased(client: Client, manifest_path: Path, eval_id: str) -> None:
    erased = {"receipt": "receipts/a.json", "at": "2026-01-02T00:00:00.000Z"}
    write_manifest(manifest_path, json.dumps(manifest(eval_id, outcome="unreadable", documents=[], erased=erased)))
    answer = await client.look_up(eval_id)
    assert (answer.status, answer.json["state"], answer.json["outcome"]) == (200, "ended", "erased")
    assert answer.json["documents"] == 0


async def test_the_answer_is_503_and_not_missing_when_redis_fails(
    client: Client, redis: Redis, manifest_path: Path, eval_id: str
) -> None:
    write_manifest(manifest_path, json.dumps(manifest(eval_id)))
    await redis.set("docv:ledger:entries", "no hash")
    answer = await client.look_up(eval_id)
    assert (answer.status, answer.headers["Retry-After"]) == (503, "5")
    assert "try again later" in answer.json["error"]


@pytest.mark.parametrize("damaged", ["no JSON", "{}"])
async def test_the_answer_is_502_when_the_manifest_is_damaged(
    client: Client, manifest_path: Path, eval_id: str, damaged: str
) -> None:
    write_manifest(manifest_path, damaged)
    answer = await client.look_up(eval_id)
    assert answer.status == 502
    assert "damaged" in answer.json["error"]


async def test_the_answer_is_503_when_the_archive_cannot_be_read(
    client: Client, manifest_path: Path, eval_id: str
) -> None:
    await asyncio.to_thread(manifest_path.mkdir)
    answer = await client.look_up(eval_id)
    assert (answer.status, answer.headers["Retry-After"]) == (503, "5")


@pytest.mark.parametrize("eval_id", ["no-id", "..%2F..%2Fetc", "0b54a4d4-6e5b-4f3c-9d2a-7c1f0e8b9a1g"])
async def test_an_invalid_id_is_refused(client: Client, eval_id: str) -> None:
    answer = await client.look_up(eval_id)
    assert answer.status == 400
    assert "UUID" in answer.json["error"]


async def test_a_request_without_a_token_is_refused(client: Client, eval_id: str) -> None:
    assert (await client.send("GET", f"/evaluations/{eval_id}")).status == 401


async def test_each_view_is_logged_before_and_after(client: Client, eval_id: str) -> None:
    with capture_logs() as logged:
        await client.send("GET", f"/evaluations/{eval_id}", Authorization=f"Bearer {INTAKE}")
        await client.send("GET", f"/evaluations/{eval_id}", Authorization="Bearer not-a-valid-secret")
    begun, viewed, refused = (line for line in logged if line["event"] != "request.answered")
    actor = f"token-{hashlib.sha256(f'bearer {INTAKE}'.encode()).hexdigest()[:8]}"
    known = {"actor": actor, "role": "producer", "eval_id": eval_id, "request_id": begun["request_id"]}
    assert begun.items() >= {**known, "event": "access.begun", "action": "evaluation.viewed"}.items()
    assert viewed.items() >= {**known, "event": "evaluation.viewed"}.items()
    assert (refused["event"], refused["actor"], refused["status"]) == ("access.refused", None, 401)
    assert refused["route"] == "/evaluations/{eval_id}"
