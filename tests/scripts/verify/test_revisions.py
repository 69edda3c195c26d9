"""The manifests of an evaluation form a chain of numbers and hashes. Each break is reported at its revision."""

from collections.abc import Callable

import pytest

from scripts.verify.revisions import RevisionChain, read_chain
from tasks.storage.manifest_records import ErasedRecord
from tests.scripts.verify.manifests import EVALUATION, bucket_with, list_objects, manifest

CURRENT = EVALUATION.manifest_key
ONE, TWO, THREE = (EVALUATION.revision_key(number) for number in (1, 2, 3))
Objects = dict[str, bytes]


def intact_objects() -> Objects:
    first = manifest().as_json()
    second = manifest(2, first).as_json()
    return {ONE: first, TWO: second, CURRENT: manifest(3, second).as_json()}


async def chain_of(objects: Objects) -> RevisionChain:
    return await read_chain(await bucket_with(objects), EVALUATION, list_objects(objects))


async def test_an_intact_chain_is_read_from_the_newest_revision() -> None:
    chain = await chain_of(intact_objects())
    assert ([record.manifest.revision for record in chain.records], chain.differences) == ([3, 2, 1], [])
    assert chain.keys == set(intact_objects())


async def test_an_evaluation_without_a_manifest_has_no_chain() -> None:
    objects = intact_objects()
    del objects[CURRENT]
    assert await chain_of(objects) == RevisionChain()


@pytest.mark.parametrize("revision", [1, 2])
async def test_a_copy_of_the_marker_left_by_a_killed_worker_is_not_reported(revision: int) -> None:
    erased = ErasedRecord(receipt="receipts/a.json", at="2026-11-23T04:00:00.000Z")
    marker = manifest(revision, erased=erased, documents=(), bundle=None).as_json()
    chain = await chain_of({CURRENT: marker, EVALUATION.revision_key(0): marker})
    assert chain.differences == []
    assert chain.keys == {CURRENT, EVALUATION.revision_key(0)}


def _without(*keys: str) -> Callable[[Objects], Objects]:
    return lambda objects: {key: data for key, data in objects.items() if key not in keys}


def _with(key: str, data: bytes) -> Callable[[Objects], Objects]:
    return lambda objects: objects | {key: data}


@pytest.mark.parametrize(
    ("damage", "differences"),
    [
        (_with(CURRENT, b"{"), [(CURRENT, "manifest_damaged", "not valid JSON")]),
        (_with(TWO, b"{"), [(TWO, "manifest_damaged", "not valid JSON")]),
        (_without(TWO), [(TWO, "revision_missing", "its successor names it")]),
        (_without(ONE, TWO), [(TWO, "revision_missing", "2 are missing")]),
        (
            _with(TWO, manifest(2, intact_objects()[ONE], account="b").as_json()),
            [(TWO, "revision_differs", "differs from the one in its successor")],
        ),
        (
            _with(TWO, manifest(7, intact_objects()[ONE]).as_json()),
            [
                (TWO, "revision_differs", "number is 7"),
                (TWO, "revision_differs", "differs from the one in its successor"),
            ],
        ),
        (
            _with(ONE, manifest(1, b"x").as_json()),
            [(ONE, "revision_differs", "contradict each other"), (ONE, "revision_differs", "hash differs")],
        ),
        (
            _with(CURRENT, manifest(3).as_json()),
            [(CURRENT, "revision_differs", "contradict each other"), (TWO, "revision_differs", "")],
        ),
        (_with(THREE, manifest(3, b"x").as_json()), [(THREE, "revision_differs", "number of the current manifest")]),
        (_with(THREE, intact_objects()[CURRENT]), []),
    ],
)
async def test_each_break_of_the_chain_is_reported_at_its_revision(
    damage: Callable[[Objects], Objects], differences: list[tuple[str, str, str]]
) -> None:
    found = (await chain_of(damage(intact_objects()))).differences
    assert [(each.key, each.problem.value) for each in found] == [(key, problem) for key, problem, _ in differences]
    assert all(words in each.detail for each, (_, _, words) in zip(found, differences, strict=True)), found


async def test_a_revision_that_disappears_is_missing() -> None:
    objects = intact_objects()
    bucket = await bucket_with(_without(TWO)(objects))
    found = (await read_chain(bucket, EVALUATION, list_objects(objects))).differences
    assert [(each.key, each.problem.value) for each in found] == [(TWO, "revision_missing")]
    assert "no longer exists" in found[0].detail
