"""The archive is asked, and tells figures only."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tests.scripts.serve.conftest import Client
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
    made = {
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
    return made | changes


def put(place: Path, text: str) -> None:
    place.write_text(text, "utf-8")


@pytest.fixture
def place(settings: Settings, eval_id: str) -> Path:
    """Where the manifest of the evaluation is."""
    path = Path(settings.archive_url.removeprefix("file://")) / "sandbox" / eval_id / "manifest.json"
    path.parent.mkdir(parents=True)
    return path


async def test_a_manifest_is_summed_up(client: Client, place: Path, eval_id: str) -> None:
    put(place, json.dumps(manifest(eval_id)))
    answer = await client.look_up(eval_id.upper())
    assert (answer.status, answer.json) == (
        200,
        {
            "eval_id": eval_id,
            "outcome": "archived",
            "documents": 2,
            "bytes": 1_050,
            "manifest": f"sandbox/{eval_id}/manifest.json",
        },
    )
    assert NAME not in answer.body.decode()


async def test_what_has_no_manifest_is_missing(client: Client, eval_id: str) -> None:
    answer = await client.look_up(eval_id)
    assert answer.status == 404
    assert answer.json == {"eval_id": eval_id, "outcome": "missing", "documents": 0, "bytes": 0, "manifest": None}


@pytest.mark.parametrize("damaged", ["no JSON", "{}"])
async def test_a_damaged_manifest_is_told_in_a_sentence(
    client: Client, place: Path, eval_id: str, damaged: str
) -> None:
    put(place, damaged)
    answer = await client.look_up(eval_id)
    assert answer.status == 502
    assert "damaged" in answer.json["error"]


async def test_an_archive_that_cannot_be_read_is_asked_later(client: Client, place: Path, eval_id: str) -> None:
    await asyncio.to_thread(place.mkdir)
    answer = await client.look_up(eval_id)
    assert (answer.status, answer.headers["Retry-After"]) == (503, "5")


@pytest.mark.parametrize("eval_id", ["no-id", "..%2F..%2Fetc", "0b54a4d4-6e5b-4f3c-9d2a-7c1f0e8b9a1g"])
async def test_what_is_no_id_is_told(client: Client, eval_id: str) -> None:
    answer = await client.look_up(eval_id)
    assert answer.status == 400
    assert "UUID" in answer.json["error"]


async def test_nobody_is_told_without_a_token(client: Client, eval_id: str) -> None:
    assert (await client.send("GET", f"/evaluations/{eval_id}")).status == 401
