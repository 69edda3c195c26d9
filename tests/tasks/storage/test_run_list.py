"""The list of a run in the archive: written once, read in pieces, believed only as it was written."""

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
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_list, "CHUNK_SIZE", 4)


async def keep(bucket: Bucket, ids: list[str] = IDS, fingerprint: str = "a" * 64, **other: Any) -> RunList:
    known = hash_lines(ids, other["facts"]) if "facts" in other else None
    source = RunSource(name="ids.csv", fingerprint=fingerprint, ids=len(ids), repeated=1, bad=2, facts=known)
    facts = {"run": "q3", "environment": "sandbox", "account": "default", "refresh": False} | other
    return await store_run_list(bucket, ids, source=source, **facts)


async def test_what_was_kept_is_read_back_in_order_piece_by_piece(bucket: Bucket) -> None:
    kept = await keep(bucket)
    assert await read_run_list(bucket, "sandbox", "q3") == kept
    assert [piece.ids for piece in kept.pieces] == [4, 4, 2]
    assert [eval_id for piece in kept.pieces for eval_id in await read_chunk(bucket, piece)] == IDS


async def test_what_is_known_of_an_evaluation_stands_beside_its_id(bucket: Bucket) -> None:
    facts = [EvaluationFacts()] * 10
    facts[1] = EvaluationFacts((Evidence.MILITARY_ID, Evidence.UNDER_AGE), 1_769_860_800.512)
    facts[5] = EvaluationFacts((), 0.0)
    facts[9] = EvaluationFacts((Evidence.UNDER_AGE,))
    kept = await keep(bucket, facts=facts)
    found: dict[str, EvaluationFacts] = {}
    for piece in kept.pieces:
        eval_ids, known = await read_chunk_with_facts(bucket, piece)
        assert eval_ids == await read_chunk(bucket, piece)
        found |= known
    assert found == {eval_id: known for eval_id, known in zip(IDS, facts, strict=True) if known != EvaluationFacts()}
    lines = b"".join([gzip.decompress(await read(bucket, piece.key)) for piece in kept.pieces])
    assert hashlib.sha256(lines).hexdigest() == kept.source.facts
    assert lines.splitlines()[1].decode() == (
        f"{IDS[1]} document_type:Military reason_code:R844 event_at:2026-01-31T12:00:00.512Z"
    )


async def test_a_list_with_a_word_of_a_later_version_is_read(tmp_path: Path) -> None:
    data = gzip.compress(f"{IDS[0]} document_type:Military hair:red\n{IDS[1]} event_at:2026-01-31T12:00:00Z\n".encode())
    (tmp_path / "piece").write_bytes(data)
    piece = Chunk(key="piece", ids=2, sha256=hashlib.sha256(data).hexdigest())
    assert await read_chunk_with_facts(LocalBucket(tmp_path), piece) == (
        IDS[:2],
        {IDS[0]: EvaluationFacts((Evidence.MILITARY_ID,)), IDS[1]: EvaluationFacts((), 1_769_860_800.0)},
    )


async def read(bucket: Bucket, key: str) -> bytes:
    found = await bucket.read(key)
    assert found
    return found.data


async def test_nobody_has_heard_of_a_run_without_a_list(bucket: Bucket) -> None:
    assert await read_run_list(bucket, "sandbox", "q3") is None


async def test_the_same_ids_are_the_same_list_also_when_it_was_half_written(bucket: Bucket) -> None:
    kept = await keep(bucket)
    assert await keep(bucket) == kept


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
async def test_a_name_that_means_something_else_is_refused(bucket: Bucket, other: dict[str, Any]) -> None:
    await keep(bucket)
    with pytest.raises(RunTaken, match="choose another name with --run"):
        await keep(bucket, **other)


async def test_the_same_ids_with_other_facts_are_another_list() -> None:
    plain = await keep(S3Bucket(MemoryStore()))
    known = await keep(S3Bucket(MemoryStore()), facts=[EvaluationFacts((Evidence.MILITARY_ID,))] * 10)
    others = await keep(S3Bucket(MemoryStore()), facts=[EvaluationFacts((Evidence.UNDER_AGE,))] * 10)
    assert len({plain.fingerprint, known.fingerprint, others.fingerprint}) == 3
    assert plain.fingerprint == plain.source.fingerprint


async def test_a_list_of_a_version_without_outcomes_to_refresh_is_the_same_list(tmp_path: Path) -> None:
    kept = await keep(LocalBucket(tmp_path))
    path = tmp_path / "runs" / "sandbox" / "q3" / "run.json"
    facts = json.loads(path.read_bytes())
    assert facts.pop("refresh_outcomes") == []
    path.write_text(json.dumps(facts))
    assert await keep(LocalBucket(tmp_path)) == kept


async def test_two_that_begin_a_run_at_once_have_the_same_list(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    first = await keep(bucket)
    looks = iter([None, first])

    async def late(*_: object) -> RunList | None:
        return next(looks)

    monkeypatch.setattr(run_list, "read_run_list", late)
    assert await keep(bucket) == first


async def test_a_position_is_found_in_its_piece(bucket: Bucket) -> None:
    kept = await keep(bucket)
    assert kept.chunk_at(0) == (kept.pieces[0], 0)
    assert kept.chunk_at(7) == (kept.pieces[1], 4)
    assert kept.chunk_at(8) == (kept.pieces[2], 8)
    with pytest.raises(IndexError):
        kept.chunk_at(10)


async def test_a_run_says_what_it_was_made_from_and_names_no_more_than_its_own_pieces(tmp_path: Path) -> None:
    await keep(LocalBucket(tmp_path))
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
async def test_a_piece_that_is_not_as_it_was_written_is_an_alarm(tmp_path: Path, lines: str | None) -> None:
    kept = await keep(LocalBucket(tmp_path))
    data = b"no gzip" if lines is None else gzip.compress(lines.encode())
    (tmp_path / kept.pieces[0].key).write_bytes(data)
    honest = kept.pieces[0].model_copy(update={"sha256": hashlib.sha256(data).hexdigest()})
    for piece in kept.pieces[0], honest:
        with pytest.raises(IntegrityError, match="a piece of a run's list"):
            await read_chunk(LocalBucket(tmp_path), piece)


async def test_a_piece_that_is_gone_is_an_alarm(tmp_path: Path) -> None:
    kept = await keep(LocalBucket(tmp_path))
    (tmp_path / kept.pieces[0].key).unlink()
    with pytest.raises(IntegrityError):
        await read_chunk(LocalBucket(tmp_path), kept.pieces[0])


@pytest.mark.parametrize("data", [b"", b"[]", b'{"schema": 2}'])
async def test_a_list_that_is_damaged_or_newer_is_an_alarm(bucket: Bucket, data: bytes) -> None:
    await bucket.replace("runs/sandbox/q3/run.json", data, ObjectAttributes("application/json"), None)
    with pytest.raises(IntegrityError, match="the list of run q3 is damaged or of a newer format"):
        await read_run_list(bucket, "sandbox", "q3")


async def test_a_list_that_the_archive_refuses_and_does_not_have_is_no_list(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: object) -> None:
        raise ManifestChanged

    monkeypatch.setattr(bucket, "replace", refuse)
    with pytest.raises(ManifestChanged):
        await keep(bucket)


# Cancelled


async def test_a_list_says_by_whom_it_was_cancelled_and_how_far_it_was(bucket: Bucket) -> None:
    kept = await keep(bucket)
    cancelled = await mark_cancelled(bucket, kept, by="a person", position=7)
    assert await read_run_list(bucket, "sandbox", "q3") == cancelled
    assert (cancelled.cancelled_by, cancelled.position, bool(cancelled.cancelled_at)) == ("a person", 7, True)
    assert await mark_cancelled(bucket, kept, by="another", position=9) == cancelled


async def test_a_cancelled_list_is_refused_unless_it_begins_again(bucket: Bucket) -> None:
    kept = await keep(bucket)
    await mark_cancelled(bucket, kept, by="a person", position=7)
    with pytest.raises(RunCancelled, match="--again"):
        await keep(bucket)
    with pytest.raises(RunTaken):
        await keep(bucket, fingerprint="b" * 64, again=True)
    assert await keep(bucket, again=True) == await keep(bucket) == kept


async def test_a_list_that_was_not_cancelled_says_nothing_of_it(tmp_path: Path) -> None:
    await keep(LocalBucket(tmp_path), again=True)
    facts = json.loads((tmp_path / "runs" / "sandbox" / "q3" / "run.json").read_bytes())
    assert not {"cancelled_at", "cancelled_by", "position"} & facts.keys()


@pytest.mark.parametrize("error", [ManifestChanged(), WriteUnconfirmed("replace", "timeout")])
async def test_a_list_that_changes_meanwhile_is_marked_all_the_same(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    kept, replace, failures = await keep(bucket), bucket.replace, [error]

    async def late(*arguments: Any) -> None:
        if failures:
            raise failures.pop()
        await replace(*arguments)

    monkeypatch.setattr(bucket, "replace", late)
    await mark_cancelled(bucket, kept, by="a person", position=7)
    assert (await keep(bucket, again=True)).cancelled_at is None


async def test_a_list_that_changes_all_the_time_is_given_up(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = await keep(bucket)

    async def refuse(*_: object) -> None:
        raise ManifestChanged

    monkeypatch.setattr(bucket, "replace", refuse)
    with pytest.raises(ManifestChanged):
        await mark_cancelled(bucket, kept, by="a person", position=7)


async def test_a_list_is_found_in_another_environment(bucket: Bucket) -> None:
    await keep(bucket, fingerprint="b" * 64)
    kept = await keep(bucket, environment="production")
    assert await find_run_list(bucket, "q3", "a" * 64, "sandbox") == kept
    assert await find_run_list(bucket, "q3", "c" * 64, "sandbox") is None
