"""The list of a run is written to the archive once, read in chunks, and refused if it was changed."""

import gzip
import hashlib
import json
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from obstore.store import MemoryStore

from tasks.errors import IntegrityError, ManifestChanged, RunCancelled, RunTaken
from tasks.model.evidence import EvaluationFacts
from tasks.model.outcome import Evidence, ManifestOutcome
from tasks.storage import run_list
from tasks.storage.bucket import Bucket, ObjectAttributes, S3Bucket, WriteUnconfirmed
from tasks.storage.local_bucket import LocalBucket
from tasks.storage.run_list import (
    Chunk,
    RunList,
    RunSource,
    find_run_list,
    hash_lines,
    mark_cancelled,
    read_chunk,
    read_chunk_with_facts,
    read_run_list,
    store_run_list,
)

IDS = [str(UUID(int=n, version=4)) for n in range(10)]


@pytest.fixture(params=["memory", "folder"])
def bucket(request: pytest.FixtureRequest, tmp_path: Path) -> Bucket:
    return S3Bucket(MemoryStore()) if request.param == "memory" else LocalBucket(tmp_path)


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_list, "CHUNK_SIZE", 4)


async def store(bucket: Bucket, ids: list[str] = IDS, fingerprint: str = "a" * 64, **other: Any) -> RunList:
    known = hash_lines(ids, other["facts"]) if "facts" in other else None
    source = RunSource(name="ids.csv", fingerprint=fingerprint, ids=len(ids), repeated=1, bad=2, facts=known)
    facts = {"run": "q3", "environment": "sandbox", "account": "default", "refresh": False} | other
    return await store_run_list(bucket, ids, source=source, **facts)


async def test_a_stored_list_is_read_back_in_order_and_in_chunks(bucket: Bucket) -> None:
    kept = await store(bucket)
    assert await read_run_list(bucket, "sandbox", "q3") == kept
    assert [chunk.ids for chunk in kept.pieces] == [4, 4, 2]
    assert "begun_by" not in json.loads(kept.as_json())
    assert (await store(bucket, run="q4", by="a person")).begun_by == "a person"
    assert [eval_id for chunk in kept.pieces for eval_id in await read_chunk(bucket, chunk)] == IDS


async def test_a_chunk_has_the_known_facts_next_to_each_id(bucket: Bucket) -> None:
    facts = [EvaluationFacts()] * 10
    facts[1] = EvaluationFacts((Evidence.MILITARY_ID, Evidence.UNDER_AGE), 1_769_860_800.512)
    facts[5] = EvaluationFacts((), 0.0)
    facts[9] = EvaluationFacts((Evidence.UNDER_AGE,))
    kept = await store(bucket, facts=facts)
    found: dict[str, EvaluationFacts] = {}
    for chunk in kept.pieces:
        eval_ids, known = await read_chunk_with_facts(bucket, chunk)
        assert eval_ids == await read_chunk(bucket, chunk)
        found |= known
    assert found == {eval_id: known for eval_id, known in zip(IDS, facts, strict=True) if known != EvaluationFacts()}
    lines = b"".join([gzip.decompress(await read(bucket, chunk.key)) for chunk in kept.pieces])
    assert hashlib.sha256(lines).hexdigest() == kept.source.facts
    assert lines.splitlines()[1].decode() == (
        f"{IDS[1]} document_type:Military reason_code:R844 event_at:2026-01-31T12:00:00.512Z"
    )


async def test_a_chunk_with_a_fact_of_a_newer_release_is_read(tmp_path: Path) -> None:
    data = gzip.compress(f"{IDS[0]} document_type:Military hair:red\n{IDS[1]} event_at:2026-01-31T12:00:00Z\n".encode())
    (tmp_path / "chunk").write_bytes(data)
    chunk = Chunk(key="chunk", ids=2, sha256=hashlib.sha256(data).hexdigest())
    assert await read_chunk_with_facts(LocalBucket(tmp_path), chunk) == (
        IDS[:2],
        {IDS[0]: EvaluationFacts((Evidence.MILITARY_ID,)), IDS[1]: EvaluationFacts((), 1_769_860_800.0)},
    )


async def read(bucket: Bucket, key: str) -> bytes:
    found = await bucket.read(key)
    assert found
    return found.data


async def test_read_run_list_returns_none_when_there_is_no_list(bucket: Bucket) -> None:
    assert await read_run_list(bucket, "sandbox", "q3") is None


async def test_store_run_list_returns_the_stored_list_for_the_same_ids(bucket: Bucket) -> None:
    kept = await store(bucket)
    assert await store(bucket) == kept


@pytest.mark.parametrize(
    "other",
    [
        {"fingerprint": "b" * 64},
        {"refresh": True},
        {"even_if_erased": True},
        {"refresh_outcomes": (ManifestOutcome.NO_DOCUMENTS,)},
        {"facts": [EvaluationFacts((Evidence.MILITARY_ID,))] * 10},
    ],
)
async def test_store_run_list_raises_when_the_name_belongs_to_another_list(
    bucket: Bucket, other: dict[str, Any]
) -> None:
    await store(bucket)
    with pytest.raises(RunTaken, match="choose another name with --run"):
        await store(bucket, **other)


async def test_the_same_ids_with_other_facts_are_another_list() -> None:
    plain = await store(S3Bucket(MemoryStore()))
    known = await store(S3Bucket(MemoryStore()), facts=[EvaluationFacts((Evidence.MILITARY_ID,))] * 10)
    others = await store(S3Bucket(MemoryStore()), facts=[EvaluationFacts((Evidence.UNDER_AGE,))] * 10)
    assert len({plain.fingerprint, known.fingerprint, others.fingerprint}) == 3
    assert plain.fingerprint == plain.source.fingerprint


async def test_a_list_of_a_release_without_refresh_outcomes_is_the_same_list(tmp_path: Path) -> None:
    kept = await store(LocalBucket(tmp_path))
    path = tmp_path / "runs" / "sandbox" / "q3" / "run.json"
    facts = json.loads(path.read_bytes())
    assert facts.pop("refresh_outcomes") == []
    path.write_text(json.dumps(facts))
    assert await store(LocalBucket(tmp_path)) == kept


async def test_two_callers_that_begin_a_run_at_once_get_the_same_list(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await store(bucket)
    results = iter([None, first])

    async def late(*_: object) -> RunList | None:
        return next(results)

    monkeypatch.setattr(run_list, "read_run_list", late)
    assert await store(bucket) == first


async def test_chunk_at_returns_the_chunk_of_a_position(bucket: Bucket) -> None:
    kept = await store(bucket)
    assert kept.chunk_at(0) == (kept.pieces[0], 0)
    assert kept.chunk_at(7) == (kept.pieces[1], 4)
    assert kept.chunk_at(8) == (kept.pieces[2], 8)
    with pytest.raises(IndexError):
        kept.chunk_at(10)


async def test_a_list_names_its_source_and_only_its_own_chunks(tmp_path: Path) -> None:
    await store(LocalBucket(tmp_path))
    folder = tmp_path / "runs" / "sandbox" / "q3"
    facts = json.loads((folder / "run.json").read_bytes())
    assert facts["source"] == {"name": "ids.csv", "fingerprint": "a" * 64, "ids": 10, "repeated": 1, "bad": 2}
    assert {path.name for path in folder.iterdir()} == {"run.json", *(f"{p['sha256']}.txt.gz" for p in facts["pieces"])}
    assert gzip.decompress((tmp_path / facts["pieces"][0]["key"]).read_bytes()).decode().split() == IDS[:4]


@pytest.mark.parametrize(
    "lines",
    [
        "",
        f"{IDS[0]} event_at:today\n" * 4,
        "\n".join(IDS[:3]),
        "\n".join(IDS[:5]),
        "\n".join([*IDS[:3], "nonsense"]),
        "x" * 1_000_000,
        None,
    ],
)
async def test_read_chunk_raises_when_the_chunk_was_changed(tmp_path: Path, lines: str | None) -> None:
    kept = await store(LocalBucket(tmp_path))
    data = b"no gzip" if lines is None else gzip.compress(lines.encode())
    (tmp_path / kept.pieces[0].key).write_bytes(data)
    rehashed = kept.pieces[0].model_copy(update={"sha256": hashlib.sha256(data).hexdigest()})
    for chunk in kept.pieces[0], rehashed:
        with pytest.raises(IntegrityError, match="a chunk of a run's list"):
            await read_chunk(LocalBucket(tmp_path), chunk)


async def test_read_chunk_raises_when_the_chunk_is_gone(tmp_path: Path) -> None:
    kept = await store(LocalBucket(tmp_path))
    (tmp_path / kept.pieces[0].key).unlink()
    with pytest.raises(IntegrityError):
        await read_chunk(LocalBucket(tmp_path), kept.pieces[0])


@pytest.mark.parametrize("data", [b"", b"[]", b'{"schema": 2}'])
async def test_read_run_list_raises_when_the_list_is_damaged_or_newer(bucket: Bucket, data: bytes) -> None:
    await bucket.replace("runs/sandbox/q3/run.json", data, ObjectAttributes("application/json"), None)
    with pytest.raises(IntegrityError, match="the list of run q3 is damaged or of a newer format"):
        await read_run_list(bucket, "sandbox", "q3")


async def test_store_run_list_raises_when_the_write_is_unconfirmed_and_the_list_missing(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: object) -> None:
        raise ManifestChanged

    monkeypatch.setattr(bucket, "replace", refuse)
    with pytest.raises(ManifestChanged):
        await store(bucket)


# Cancellation


async def test_mark_cancelled_records_who_cancelled_the_run_and_its_position(bucket: Bucket) -> None:
    kept = await store(bucket)
    cancelled = await mark_cancelled(bucket, kept, by="a person", position=7)
    assert await read_run_list(bucket, "sandbox", "q3") == cancelled
    assert (cancelled.cancelled_by, cancelled.position, bool(cancelled.cancelled_at)) == ("a person", 7, True)
    assert await mark_cancelled(bucket, kept, by="another", position=9) == cancelled


async def test_store_run_list_raises_for_a_cancelled_run_unless_it_begins_again(bucket: Bucket) -> None:
    kept = await store(bucket)
    await mark_cancelled(bucket, kept, by="a person", position=7)
    with pytest.raises(RunCancelled, match="--again"):
        await store(bucket)
    with pytest.raises(RunTaken):
        await store(bucket, fingerprint="b" * 64, again=True)
    assert await store(bucket, again=True) == await store(bucket) == kept


async def test_a_list_has_no_fields_of_a_cancellation_when_there_was_none(tmp_path: Path) -> None:
    await store(LocalBucket(tmp_path), again=True)
    facts = json.loads((tmp_path / "runs" / "sandbox" / "q3" / "run.json").read_bytes())
    assert not {"cancelled_at", "cancelled_by", "position"} & facts.keys()


@pytest.mark.parametrize("error", [ManifestChanged(), WriteUnconfirmed("replace", "timeout")])
async def test_mark_cancelled_succeeds_when_the_list_changes_in_the_meantime(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    kept, replace, failures = await store(bucket), bucket.replace, [error]

    async def late(*arguments: Any) -> None:
        if failures:
            raise failures.pop()
        await replace(*arguments)

    monkeypatch.setattr(bucket, "replace", late)
    await mark_cancelled(bucket, kept, by="a person", position=7)
    assert (await store(bucket, again=True)).cancelled_at is None


async def test_mark_cancelled_raises_when_the_list_changes_each_time(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = await store(bucket)

    async def refuse(*_: object) -> None:
        raise ManifestChanged

    monkeypatch.setattr(bucket, "replace", refuse)
    with pytest.raises(ManifestChanged):
        await mark_cancelled(bucket, kept, by="a person", position=7)


async def test_find_run_list_finds_a_list_of_another_environment(bucket: Bucket) -> None:
    await store(bucket, fingerprint="b" * 64)
    kept = await store(bucket, environment="production")
    assert await find_run_list(bucket, "q3", "a" * 64, "sandbox") == kept
    assert await find_run_list(bucket, "q3", "c" * 64, "sandbox") is None
