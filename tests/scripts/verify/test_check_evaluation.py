"""One evaluation: its objects are exactly those of its manifests, and concurrent writes of workers are not reported."""

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
from tests.scripts.verify.conftest import Place

IDS = eval_ids(10)
FIRST = IDS[0]
MANIFEST = f"sandbox/{FIRST}/manifest.json"


async def wrong(place: Place, **facts: object) -> list[tuple[str, str]]:
    return [(each.key, each.problem.value) for each in await place.verified(**facts)]  # type: ignore[arg-type]


async def test_an_archive_of_workers_has_no_differences(place: Place) -> None:
    await fill(place.bucket, IDS)
    for depth in VerifyDepth:
        assert await wrong(place, depth=depth) == []
    assert place.ctx
    tally = place.ctx.progress
    assert (tally.evaluations, tally.quarantined, tally.runs, tally.young) == (10, 1, 1, 0)
    assert tally.objects == len([key for key in place.hand.listed() if key.startswith("sandbox/")])


async def test_a_copy_left_by_a_killed_worker_is_not_reported(place: Place) -> None:
    await archive(place.bucket, FIRST, Outcome.ARCHIVED, documents(FIRST, 1, 100))
    place.hand.put(f"sandbox/{FIRST}/revisions/1.json", place.hand.get(MANIFEST))
    assert await wrong(place) == []
    place.hand.put(f"sandbox/{FIRST}/revisions/1.json", b"{}")
    assert await wrong(place) == [(f"sandbox/{FIRST}/revisions/1.json", "revision_differs")]


async def test_an_unlisted_object_is_an_orphan_only_when_it_is_old(place: Place) -> None:
    key = f"sandbox/{FIRST}/selfie/{'0' * 64}.jpg"
    place.hand.put(key, b"on its way")
    assert await wrong(place, grace=3600) == []
    assert place.ctx
    assert place.ctx.progress.young == 1
    assert await wrong(place) == [(MANIFEST, "manifest_missing"), (key, "orphan")]


async def test_a_disposed_document_is_reported_only_while_its_object_exists(place: Place) -> None:
    await archive(place.bucket, FIRST, Outcome.ARCHIVED, documents(FIRST, 1, 100))
    evaluation = Evaluation(FIRST, "sandbox")
    keys = await list_as_disposed(place.bucket, evaluation, lambda document: document.kind != "document_back")
    assert await wrong(place) == [(key, "disposed_still_there") for key in sorted(keys)]

    for key in keys:
        place.hand.delete(key)
    for depth in VerifyDepth:
        assert await wrong(place, depth=depth) == []

    # All documents are gone, also with a later revision by a worker.
    (key,) = await list_as_disposed(place.bucket, evaluation)
    place.hand.delete(key)
    await archive(place.bucket, FIRST, Outcome.NO_DOCUMENTS)
    assert await wrong(place) == []


async def test_disposed_bytes_are_reported_when_they_return_as_another_kind(place: Place) -> None:
    await archive(place.bucket, FIRST, Outcome.ARCHIVED, documents(FIRST, 1, 100))
    for key in await list_as_disposed(place.bucket, Evaluation(FIRST, "sandbox")):
        place.hand.delete(key)
    came_back = key.replace(key.split("/")[2], "other")
    place.hand.put(came_back, b"the bytes")
    assert await wrong(place) == [(came_back, "disposed_still_there")]


async def test_a_disposal_under_way_is_not_reported(place: Place) -> None:
    await archive(place.bucket, FIRST, Outcome.ARCHIVED, documents(FIRST, 1, 100))
    await list_as_disposed(place.bucket, Evaluation(FIRST, "sandbox"))
    assert await wrong(place, grace=3600) == []
    assert place.ctx
    assert place.ctx.progress.young == 3


async def test_a_requested_evaluation_is_reported_when_it_is_missing(place: Place) -> None:
    found = await place.checked(ObjectGroup(evaluation_place("sandbox", FIRST), None))
    assert [(each.eval_id, each.problem) for each in found] == [(FIRST, Problem.MANIFEST_MISSING)]
    assert await place.checked(ObjectGroup(quarantine_place("sandbox", FIRST), None)) == []


async def test_concurrent_writes_of_workers_are_not_reported(place: Place) -> None:
    await fill(place.bucket, IDS)

    async def work() -> None:
        for revision in range(2, 5):
            for eval_id in IDS[:3]:
                await archive(place.bucket, eval_id, Outcome.ARCHIVED, documents(eval_id, revision, 500))

    working = asyncio.create_task(work())
    looks = 0
    while not working.done() or not looks:
        assert await wrong(place, grace=3600) == []
        looks += 1
    await working
    assert await wrong(place) == []


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
async def test_a_key_of_another_evaluation_is_reported_and_never_read(place: Place, key: str, problem: str) -> None:
    await archive(place.bucket, FIRST, Outcome.ARCHIVED, documents(FIRST, 1, 100))
    manifest = json.loads(place.hand.get(MANIFEST))
    was = manifest["documents"][0]["key"]
    manifest["documents"][0]["key"] = key
    place.hand.put(MANIFEST, json.dumps(manifest).encode())
    asked: list[str] = []
    digest = place.bucket.digest

    async def noted(key: str) -> str | None:
        asked.append(key)
        return await digest(key)

    place.bucket.digest = noted  # type: ignore[method-assign]
    assert sorted(await wrong(place)) == sorted([(key, problem), (was, "orphan")])
    assert key not in asked


async def test_only_evaluations_archived_since_then_are_checked(place: Place) -> None:
    await archive(place.bucket, FIRST, Outcome.ARCHIVED, documents(FIRST, 1, 100))
    key = next(key for key in place.hand.listed() if key.endswith(".jpg"))
    place.hand.put(key, b"another")
    later, before = datetime(2026, 11, 24, tzinfo=UTC), datetime(2026, 11, 23, tzinfo=UTC)
    assert await wrong(place, selection=Selection(since=later)) == []
    assert await wrong(place, selection=Selection(since=before)) == [(key, "size_differs")]


async def test_changed_bytes_of_the_same_size_are_not_found_by_size(place: Place) -> None:
    await archive(place.bucket, FIRST, Outcome.ARCHIVED, documents(FIRST, 1, 100))
    key = next(key for key in place.hand.listed() if key.endswith(".jpg"))
    place.hand.put(key, bytes(104))
    assert await wrong(place, depth=VerifyDepth.SIZES) == []
    for depth in (VerifyDepth.CONTENT, VerifyDepth.CHECKSUMS):
        assert await wrong(place, depth=depth) == [(key, "content_differs")]


@pytest.mark.parametrize("place", ["s3"], indirect=True)
async def test_different_metadata_and_tags_are_reported(place: Place) -> None:
    await archive(place.bucket, FIRST, Outcome.ARCHIVED, documents(FIRST, 1, 100))
    key = next(key for key in place.hand.listed() if "/selfie/" in key)
    data = place.hand.get(key)
    place.hand.delete(key)
    place.hand.put(key, data)
    named = await wrong(place)
    assert [problem for _, problem in named] == ["metadata_differs"] * 3 + ["tags_differ"] * 3
    assert {where for where, _ in named} == {key}
    assert await wrong(place, depth=VerifyDepth.SIZES) == []


@pytest.mark.parametrize("place", ["s3"], indirect=True)
async def test_a_lock_is_checked_only_when_one_is_expected(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    await archive(place.bucket, FIRST, Outcome.ARCHIVED, documents(FIRST, 1, 100))
    assert {problem for _, problem in await wrong(place, lock_expected="COMPLIANCE")} == {"lock_differs"}
    assert await wrong(place, lock_expected=None) == []
    assert await wrong(place, lock_expected="COMPLIANCE", has_schedule=True) == []


async def test_a_document_with_two_names_may_have_the_tag_of_either(place: Place) -> None:
    one, *rest = documents(FIRST, 1, 100)
    await archive(place.bucket, FIRST, Outcome.ARCHIVED, [replace(one, name="elsewhere/front.jpg"), *rest])
    await archive(place.bucket, FIRST, Outcome.ARCHIVED, [one, rest[0]])
    assert (await read_manifest(place.bucket, Evaluation(FIRST, "sandbox"))).manifest.revision == 2  # type: ignore[union-attr]
    assert await wrong(place) == []


async def test_an_erased_evaluation_has_no_differences_even_when_it_was_archived_again(place: Place) -> None:
    again, *others = ids = eval_ids(4)
    for outcome, eval_id in zip((Outcome.ARCHIVED, Outcome.UNREADABLE, Outcome.NO_DOCUMENTS), ids, strict=False):
        await archive(place.bucket, eval_id, outcome, documents(eval_id, 1, 100) if outcome.ok else ())
    await archive(place.bucket, again, Outcome.ARCHIVED, documents(again, 2, 100))
    for eval_id in ids:
        evaluation = Evaluation(eval_id, "sandbox")
        before = await read_manifest(place.bucket, evaluation)
        for key in place.hand.listed():
            if eval_id in key:
                place.hand.delete(key)
        receipt = f"receipts/sandbox/{eval_id}/20261123T040000Z.json"
        kept: Any = SimpleNamespace(key=receipt, receipt=SimpleNamespace(erased_at="2026-11-23T04:00:00.000Z"))
        data = make_marker(evaluation, kept, before.manifest if before else None).as_json()
        place.hand.put(evaluation.manifest_key, data)
        place.hand.put(receipt, b"{}")
    assert await place.verified() == []
    assert others

    await archive(place.bucket, again, Outcome.ARCHIVED, documents(again, 3, 100))
    assert f"sandbox/{again}/revisions/0.json" in place.hand.listed()
    assert await place.verified() == []
