"""`erase --pending` completes every open erasure, even if another one fails."""

import asyncio
import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock
from uuid import uuid4

import pytest
from click.testing import CliRunner
from redis.asyncio import Redis

from scripts.cli import main
from scripts.erase.erasure import BegunErasure, Erased, ErasureRefused, ErasureResult, ErasureStores, erase_one
from scripts.erase.files import LocalFiles
from scripts.erase.pending import begin_pending, sweep_leftovers
from scripts.erase.receipt import ErasureRequest
from scripts.erase.steps import begin_request, finish_request
from scripts.erase.stock import NotRemoved
from scripts.erase.traces import RedisRecords
from tasks.errors import IntegrityError
from tasks.ledger.ledger import Ledger
from tasks.model.evaluation import Evaluation
from tasks.model.outcome import Outcome
from tasks.storage.local_bucket import LocalBucket
from tests.archives import archive, documents

REQUEST = ErasureRequest("request 4711", "operator", "a-host")
RESUMED = ErasureRequest("", "operator", "a-host")
LEFTOVERS = "docv:erased:leftovers"
SHA256 = hashlib.sha256(b"late").hexdigest()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "archive"


@pytest.fixture
def stores(root: Path, redis: Redis) -> ErasureStores:
    return ErasureStores(LocalBucket(root), LocalFiles(root), RedisRecords(Ledger(redis), 0.0))


async def archive_evaluation(stores: ErasureStores) -> Evaluation:
    evaluation = Evaluation(str(uuid4()), "sandbox")
    await archive(stores.bucket, evaluation.eval_id, Outcome.ARCHIVED, documents(evaluation.eval_id, 1, 100))
    return evaluation


async def begin_open_erasure(stores: ErasureStores) -> BegunErasure:
    """Begin the erasure of a new evaluation, and leave its receipt open."""
    result = await begin_request(await archive_evaluation(stores), REQUEST, stores)
    assert isinstance(result, BegunErasure)
    return result


async def add_leftover(stores: ErasureStores, root: Path, redis: Redis) -> tuple[Evaluation, Path]:
    """Erase an evaluation, then store and record an object like a worker that did not know of the erasure."""
    erased = await begin_open_erasure(stores)
    assert isinstance(await finish_request(erased, stores), Erased)
    late = root / erased.evaluation.document_key("selfie", SHA256, "jpg")
    late.parent.mkdir(parents=True)
    late.write_bytes(b"late")
    await redis.sadd(LEFTOVERS, str(late.relative_to(root)))
    return erased.evaluation, late


def add_damaged_receipt(root: Path, evaluation: Evaluation) -> str:
    key = f"receipts/sandbox/{evaluation.eval_id}/20260101T000000.000000Z.json"
    (root / key).parent.mkdir(parents=True, exist_ok=True)
    (root / key).write_text("{}")
    return key


async def resume_pending(stores: ErasureStores) -> dict[str, BegunErasure | ErasureResult]:
    results = [each async for each in begin_pending(RESUMED, stores, ["sandbox"], dry_run=False)]
    assert len({evaluation for evaluation, _ in results}) == len(results)
    return {evaluation.eval_id: result for evaluation, result in results}


async def complete(stores: ErasureStores, result: BegunErasure | ErasureResult) -> ErasureResult:
    assert isinstance(result, BegunErasure)
    return await finish_request(result, stores)


async def sweep(stores: ErasureStores, *, dry_run: bool = False) -> dict[str, ErasureResult]:
    return {
        evaluation.eval_id: result
        async for evaluation, result in sweep_leftovers(RESUMED, stores, ["sandbox"], dry_run=dry_run)
    }


@pytest.mark.parametrize("is_open", [False, True], ids=["alone", "next to an open one"])
async def test_a_damaged_receipt_is_reported_and_the_others_are_completed(
    stores: ErasureStores, root: Path, *, is_open: bool
) -> None:
    bad, good = (
        (await begin_open_erasure(stores)).evaluation if is_open else await archive_evaluation(stores),
        await begin_open_erasure(stores),
    )
    key = add_damaged_receipt(root, bad)
    results = await resume_pending(stores)
    refused, resumed = results.pop(bad.eval_id), results.pop(good.evaluation.eval_id)
    assert isinstance(refused, ErasureRefused)
    assert key in refused.why
    assert isinstance(resumed, BegunErasure)
    assert isinstance(await finish_request(resumed, stores), Erased)
    assert results == {}


async def test_foreign_objects_among_the_receipts_are_ignored(stores: ErasureStores, root: Path) -> None:
    good = await begin_open_erasure(stores)
    for name in ("notes.txt", "notes.json", f"{good.evaluation.eval_id}/notes.txt"):
        (root / "receipts" / "sandbox" / name).write_text("foreign")
    assert [*await resume_pending(stores)] == [good.evaluation.eval_id]


async def test_an_erasure_names_the_damaged_receipt_that_stops_it(stores: ErasureStores, root: Path) -> None:
    evaluation = await archive_evaluation(stores)
    key = add_damaged_receipt(root, evaluation)
    with pytest.raises(IntegrityError, match=key):
        await begin_request(evaluation, REQUEST, stores)


async def test_leftovers_stay_recorded_until_they_are_removed(
    stores: ErasureStores, root: Path, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluation, late = await add_leftover(stores, root, redis)
    with monkeypatch.context() as patch:
        patch.setattr(LocalFiles, "locks", lambda *_, **__: "S3 has a lock on it")
        assert isinstance((await sweep(stores))[evaluation.eval_id], ErasureRefused)
    assert await redis.smembers(LEFTOVERS) == {str(late.relative_to(root))}
    assert isinstance((await sweep(stores))[evaluation.eval_id], Erased)
    assert (late.exists(), await redis.exists(LEFTOVERS)) == (False, 0)


@pytest.mark.parametrize("kinds", [(), ("selfie",)], ids=["whole", "kind"])
async def test_an_object_that_cannot_be_removed_does_not_stop_other_erasures(
    stores: ErasureStores, root: Path, undeletable: set[str], kinds: tuple[str, ...]
) -> None:
    request, evaluations = replace(REQUEST, kinds=kinds), [await archive_evaluation(stores) for _ in range(3)]
    bad, late_bad, good = evaluations
    undeletable.add(bad.eval_id)
    with pytest.raises(NotRemoved, match="Operation not permitted"):
        await begin_request(bad, request, stores)
    beginnings = {each.eval_id: await begin_request(each, request, stores) for each in evaluations[1:]}
    undeletable.add(late_bad.eval_id)
    late = root / late_bad.document_key("selfie", SHA256, "jpg")
    late.parent.mkdir(parents=True, exist_ok=True)
    late.write_bytes(b"late")
    with pytest.raises(NotRemoved, match="Operation not permitted"):
        await complete(stores, beginnings[late_bad.eval_id])

    results = await resume_pending(stores)
    assert {eval_id: type(each) for eval_id, each in results.items()} == {
        bad.eval_id: ErasureRefused,
        late_bad.eval_id: ErasureRefused,
        good.eval_id: BegunErasure,
    }
    assert isinstance(await complete(stores, results[good.eval_id]), Erased)

    undeletable.clear()
    resumed = await resume_pending(stores)
    assert set(resumed) == {bad.eval_id, late_bad.eval_id}
    assert [type(await complete(stores, each)) for each in resumed.values()] == [Erased, Erased]
    assert not any("selfie" in key for key in stores.versions.keys("sandbox/"))


async def test_leftovers_that_cannot_be_removed_do_not_stop_the_removal_of_others(
    stores: ErasureStores, root: Path, redis: Redis, undeletable: set[str]
) -> None:
    leftovers = [await add_leftover(stores, root, redis) for _ in range(4)]
    bad, kept = leftovers[1]
    undeletable.add(bad.eval_id)
    assert isinstance((await sweep(stores))[bad.eval_id], ErasureRefused)
    assert [late.exists() for _, late in leftovers] == [late == kept for _, late in leftovers]
    assert await redis.smembers(LEFTOVERS) == {str(kept.relative_to(root))}


async def test_a_damaged_manifest_does_not_stop_the_removal_of_other_leftovers(
    stores: ErasureStores, root: Path, redis: Redis
) -> None:
    leftovers = [await add_leftover(stores, root, redis) for _ in range(4)]
    bad, kept = leftovers[1]
    (root / bad.manifest_key).write_text("{}")
    results = await sweep(stores)
    assert isinstance(results[bad.eval_id], ErasureRefused)
    assert len(results) == 4
    assert [late.exists() for _, late in leftovers] == [late == kept for _, late in leftovers]
    assert await redis.smembers(LEFTOVERS) == {str(kept.relative_to(root))}


async def test_leftovers_that_no_longer_exist_are_deleted_from_the_record(
    stores: ErasureStores, root: Path, redis: Redis
) -> None:
    _, late = await add_leftover(stores, root, redis)
    late.unlink()
    assert not any(isinstance(each, ErasureRefused) for each in (await sweep(stores)).values())
    assert await redis.exists(LEFTOVERS) == 0


async def test_leftovers_that_are_recorded_during_the_sweep_stay_recorded(
    stores: ErasureStores, root: Path, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluation, late = await add_leftover(stores, root, redis)
    later = root / evaluation.document_key("document_front", SHA256, "jpg")

    async def erase_then_add(*arguments: Any, **options: Any) -> ErasureResult:
        result = await erase_one(*arguments, **options)
        later.parent.mkdir(parents=True)
        later.write_bytes(b"late")
        await redis.sadd(LEFTOVERS, str(later.relative_to(root)))
        return result

    with monkeypatch.context() as patch:
        patch.setattr("scripts.erase.pending.erase_one", erase_then_add)
        await sweep(stores)
    assert (late.exists(), later.exists()) == (False, True)
    await sweep(stores)
    assert (later.exists(), await redis.exists(LEFTOVERS)) == (False, 0)


async def test_leftovers_stay_recorded_after_a_dry_run(stores: ErasureStores, root: Path, redis: Redis) -> None:
    await add_leftover(stores, root, redis)
    await sweep(stores, dry_run=True)
    assert await redis.scard(LEFTOVERS) == 1


def test_erase_continues_with_the_other_evaluations_after_a_refusal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, undeletable: set[str]
) -> None:
    root = tmp_path / "archive"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DOCV_ARCHIVE_URL", root.as_uri())
    monkeypatch.setattr("scripts.erase.command.wait_for_workers", AsyncMock())
    stores = ErasureStores(LocalBucket(root), LocalFiles(root), RedisRecords(None))
    evaluations = [asyncio.run(archive_evaluation(stores)) for _ in range(4)]
    undeletable.add(evaluations[1].eval_id)
    add_damaged_receipt(root, evaluations[2])

    def run(*arguments: str) -> list[str]:
        finished = CliRunner().invoke(main, ("erase", *arguments, "--json"))
        assert finished.exit_code == 1, finished.output
        return [f"{each['eval_id']} {each['state']}" for each in map(json.loads, finished.stdout.splitlines())]

    named = [each.eval_id for each in evaluations]
    states = ("erased", "refused", "refused", "erased")
    assert sorted(run(*named, "--reason", "request 4711", "--yes")) == sorted(
        f"{eval_id} {state}" for eval_id, state in zip(named, states, strict=True)
    )
    assert sorted(run("--pending")) == sorted(f"{eval_id} refused" for eval_id in named[1:3])
