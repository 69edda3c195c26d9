"""The objects of an evaluation are exactly those of its manifests. Concurrent writes of workers are not reported."""

import asyncio
import json
from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from scripts.erase.marker import make_marker
from scripts.verify.context import Selection, VerifyDepth
from scripts.verify.layout import ObjectGroup, evaluation_place, quarantine_place
from scripts.verify.problems import Problem
from tasks.model.evaluation import Evaluation
from tasks.model.outcome import Outcome
from tasks.storage.manifest import read_manifest
from tests.archives import archive, documents, eval_ids, fill
from tests.disposals import list_as_disposed
from tests.scripts.verify.conftest import Target

IDS = eval_ids(10)
FIRST = IDS[0]
MANIFEST = f"sandbox/{FIRST}/manifest.json"


async def find_problems(target: Target, **facts: object) -> list[tuple[str, str]]:
    return [(each.key, each.problem.value) for each in await target.verify(**facts)]  # type: ignore[arg-type]


async def test_an_archive_written_by_workers_has_no_differences(target: Target) -> None:
    await fill(target.bucket, IDS)
    for depth in VerifyDepth:
        assert await find_problems(target, depth=depth) == []
    assert target.ctx
    progress = target.ctx.progress
    assert (progress.evaluations, progress.quarantined, progress.runs, progress.young) == (10, 1, 1, 0)
    assert progress.objects == len([key for key in target.editor.listed() if key.startswith("sandbox/")])


async def test_a_copy_left_by_a_killed_worker_is_not_reported(target: Target) -> None:
    await archive(target.bucket, FIRST, Outcome.ARCHIVED, documents(FIRST, 1, 100))
    target.editor.put(f"sandbox/{FIRST}/revisions/1.json", target.editor.get(MANIFEST))
    assert await find_problems(target) == []
    target.editor.put(f"sandbox/{FIRST}/revisions/1.json", b"{}")
    assert await find_problems(target) == [(f"sandbox/{FIRST}/revisions/1.json", "revision_differs")]


async def test_an_unlisted_object_is_an_orphan_only_when_it_is_old(target: Target) -> None:
    key = f"sandbox/{FIRST}/selfie/{'0' * 64}.jpg"
    target.editor.put(key, b"on its way")
    assert await find_problems(target, grace=3600) == []
    assert target.ctx
    assert target.ctx.progress.young == 1
    assert await find_problems(target) == [(MANIFEST, "manifest_missing"), (key, "orphan")]


async def test_a_disposed_document_is_reported_only_while_its_object_exists(target: Target) -> None:
    await archive(target.bucket, FIRST, Outcome.ARCHIVED, documents(FIRST, 1, 100))
    evaluation = Evaluation(FIRST, "sandbox")
    keys = await list_as_disposed(target.bucket, evaluation, lambda document: document.kind != "document_back")
    assert await find_problems(target) == [(key, "disposed_still_there") for key in sorted(keys)]

    for key in keys:
        target.editor.delete(key)
    for depth in VerifyDepth:
        assert await find_problems(target, depth=depth) == []

    # All documents are gone, even after a later revision by a worker.
    (key,) = await list_as_disposed(target.bucket, evaluation)
    target.editor.delete(key)
    await archive(target.bucket, FIRST, Outcome.NO_DOCUMENTS)
    assert await find_problems(target) == []


async def test_disposed_bytes_are_reported_when_they_return_as_another_kind(target: Target) -> None:
    await archive(target.bucket, FIRST, Outcome.ARCHIVED, documents(FIRST, 1, 100))
    for key in await list_as_disposed(target.bucket, Evaluation(FIRST, "sandbox")):
        target.editor.delete(key)
    returned_key = key.replace(key.split("/")[2], "other")
    target.editor.put(returned_key, b"the bytes")
    assert await find_problems(target) == [(returned_key, "disposed_still_there")]


async def test_a_disposal_under_way_is_not_reported(target: Target) -> None:
    await archive(target.bucket, FIRST, Outcome.ARCHIVED, documents(FIRST, 1, 100))
    await list_as_disposed(target.bucket, Evaluation(FIRST, "sandbox"))
    assert await find_problems(target, grace=3600) == []
    assert target.ctx
    assert target.ctx.progress.young == 3


async def test_a_requested_evaluation_is_reported_when_it_is_missing(target: Target) -> None:
    found = await target.check(ObjectGroup(evaluation_place("sandbox", FIRST), None))
    assert [(each.eval_id, each.problem) for each in found] == [(FIRST, Problem.MANIFEST_MISSING)]
    assert await target.check(ObjectGroup(quarantine_place("sandbox", FIRST), None)) == []


async def test_concurrent_writes_of_workers_are_not_reported(target: Target) -> None:
    await fill(target.bucket, IDS)

    async def work() -> None:
        for revision in range(2, 5):
            for eval_id in IDS[:3]:
                await archive(target.bucket, eval_id, Outcome.ARCHIVED, documents(eval_id, revision, 500))

    task = asyncio.create_task(work())
    verifications = 0
    while not task.done() or not verifications:
        assert await find_problems(target, grace=3600) == []
        verifications += 1
    await task
    assert await find_problems(target) == []


@pytest.mark.parametrize(
    ("key", "problem"),
    [
        ("../../outside.jpg", "key_outside"),
        ("/etc/hostname", "key_outside"),
        (f"sandbox/{IDS[1]}/selfie/{'0' * 64}.jpg", "key_outside"),
        (f"sandbox/{FIRST}/../{IDS[1]}/manifest.json", "key_outside"),
        (f"sandbox/{FIRST}/selfie/{'0' * 64}.jpg", "key_wrong"),
        ("", "key_outside"),
    ],
)
async def test_a_key_of_another_evaluation_is_reported_and_never_read(target: Target, key: str, problem: str) -> None:
    await archive(target.bucket, FIRST, Outcome.ARCHIVED, documents(FIRST, 1, 100))
    manifest = json.loads(target.editor.get(MANIFEST))
    real_key = manifest["documents"][0]["key"]
    manifest["documents"][0]["key"] = key
    target.editor.put(MANIFEST, json.dumps(manifest).encode())
    digested: list[str] = []
    digest = target.bucket.digest

    async def record_and_digest(key: str) -> str | None:
        digested.append(key)
        return await digest(key)

    target.bucket.digest = record_and_digest  # type: ignore[method-assign]
    assert sorted(await find_problems(target)) == sorted([(key, problem), (real_key, "orphan")])
    assert key not in digested


async def test_only_evaluations_archived_since_the_date_are_checked(target: Target) -> None:
    await archive(target.bucket, FIRST, Outcome.ARCHIVED, documents(FIRST, 1, 100))
    key = next(key for key in target.editor.listed() if key.endswith(".jpg"))
    target.editor.put(key, b"another")
    later, before = datetime(2026, 11, 24, tzinfo=UTC), datetime(2026, 11, 23, tzinfo=UTC)
    assert await find_problems(target, selection=Selection(since=later)) == []
    assert await find_problems(target, selection=Selection(since=before)) == [(key, "size_differs")]


async def test_changed_bytes_of_the_same_size_are_not_found_by_size(target: Target) -> None:
    await archive(target.bucket, FIRST, Outcome.ARCHIVED, documents(FIRST, 1, 100))
    key = next(key for key in target.editor.listed() if key.endswith(".jpg"))
    target.editor.put(key, bytes(104))
    assert await find_problems(target, depth=VerifyDepth.SIZES) == []
    for depth in (VerifyDepth.CONTENT, VerifyDepth.CHECKSUMS):
        assert await find_problems(target, depth=depth) == [(key, "content_differs")]


@pytest.mark.parametrize("target", ["s3"], indirect=True)
async def test_different_metadata_and_tags_are_reported(target: Target) -> None:
    await archive(target.bucket, FIRST, Outcome.ARCHIVED, documents(FIRST, 1, 100))
    key = next(key for key in target.editor.listed() if "/selfie/" in key)
    data = target.editor.get(key)
    target.editor.delete(key)
    target.editor.put(key, data)
    problems = await find_problems(target)
    assert [problem for _, problem in problems] == ["metadata_differs"] * 3 + ["tags_differ"] * 3
    assert {each for each, _ in problems} == {key}
    assert await find_problems(target, depth=VerifyDepth.SIZES) == []


@pytest.mark.parametrize("target", ["s3"], indirect=True)
async def test_a_lock_is_checked_only_when_one_is_expected(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    await archive(target.bucket, FIRST, Outcome.ARCHIVED, documents(FIRST, 1, 100))
    assert {problem for _, problem in await find_problems(target, lock_expected="COMPLIANCE")} == {"lock_differs"}
    assert await find_problems(target, lock_expected=None) == []
    assert await find_problems(target, lock_expected="COMPLIANCE", has_schedule=True) == []


async def test_a_document_with_two_names_may_have_the_tag_of_either(target: Target) -> None:
    one, *rest = documents(FIRST, 1, 100)
    await archive(target.bucket, FIRST, Outcome.ARCHIVED, [replace(one, name="elsewhere/front.jpg"), *rest])
    await archive(target.bucket, FIRST, Outcome.ARCHIVED, [one, rest[0]])
    assert (await read_manifest(target.bucket, Evaluation(FIRST, "sandbox"))).manifest.revision == 2  # type: ignore[union-attr]
    assert await find_problems(target) == []


async def test_an_erased_evaluation_has_no_differences_even_when_it_was_archived_again(target: Target) -> None:
    again, *others = ids = eval_ids(4)
    for outcome, eval_id in zip((Outcome.ARCHIVED, Outcome.UNREADABLE, Outcome.NO_DOCUMENTS), ids, strict=False):
        await archive(target.bucket, eval_id, outcome, documents(eval_id, 1, 100) if outcome.ok else ())
    await archive(target.bucket, again, Outcome.ARCHIVED, documents(again, 2, 100))
    for eval_id in ids:
        evaluation = Evaluation(eval_id, "sandbox")
        before = await read_manifest(target.bucket, evaluation)
        for key in target.editor.listed():
            if eval_id in key:
                target.editor.delete(key)
        receipt = f"receipts/sandbox/{eval_id}/20261123T040000Z.json"
        kept: Any = SimpleNamespace(key=receipt, receipt=SimpleNamespace(erased_at="2026-11-23T04:00:00.000Z"))
        data = make_marker(evaluation, kept, before.manifest if before else None).as_json()
        target.editor.put(evaluation.manifest_key, data)
        target.editor.put(receipt, b"{}")
    assert await target.verify() == []
    assert others

    await archive(target.bucket, again, Outcome.ARCHIVED, documents(again, 3, 100))
    assert f"sandbox/{again}/revisions/0.json" in target.editor.listed()
    assert await target.verify() == []
