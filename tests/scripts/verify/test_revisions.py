"""The manifests of an evaluation form a chain of numbers and hashes; each break is reported at its place."""

from collections.abc import Callable

import pytest

from scripts.verify.revisions import RevisionChain, read_chain
from tasks.storage.manifest_records import ErasedRecord
from tests.scripts.verify.manifests import EVALUATION, holding, listed, manifest

CURRENT = EVALUATION.manifest_key
ONE, TWO, THREE = (EVALUATION.revision_key(number) for number in (1, 2, 3))
Objects = dict[str, bytes]


def whole() -> Objects:
    first = manifest().as_json()
    second = manifest(2, first).as_json()
    return {ONE: first, TWO: second, CURRENT: manifest(3, second).as_json()}


async def chain_of(objects: Objects) -> RevisionChain:
    return await read_chain(await holding(objects), EVALUATION, listed(objects))


async def test_an_intact_chain_is_read_from_the_newest_revision() -> None:
    chain = await chain_of(whole())
    assert ([record.manifest.revision for record in chain.records], chain.differences) == ([3, 2, 1], [])
    assert chain.keys == set(whole())


async def test_without_a_manifest_there_is_no_chain() -> None:
    objects = whole()
    del objects[CURRENT]
    assert await chain_of(objects) == RevisionChain()


@pytest.mark.parametrize("revision", [1, 2])
async def test_a_copy_of_the_marker_left_by_a_killed_worker_is_not_reported(revision: int) -> None:
    erased = ErasedRecord(receipt="receipts/a.json", at="2026-11-23T04:00:00.000Z")
    marker = manifest(revision, erased=erased, documents=(), bundle=None).as_json()
    chain = await chain_of({CURRENT: marker, EVALUATION.revision_key(0): marker})
    assert chain.differences == []
    assert chain.keys == {CURRENT, EVALUATION.revision_key(0)}


def _lost(*keys: str) -> Callable[[Objects], Objects]:
    return lambda objects: {key: data for key, data in objects.items() if key not in keys}


def _put(key: str, data: bytes) -> Callable[[Objects], Objects]:
    return lambda objects: objects | {key: data}


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (_put(CURRENT, b"{"), [(CURRENT, "manifest_damaged", "not valid JSON")]),
        (_put(TWO, b"{"), [(TWO, "manifest_damaged", "not valid JSON")]),
        (_lost(TWO), [(TWO, "revision_missing", "its successor names it")]),
        (_lost(ONE, TWO), [(TWO, "revision_missing", "2 are missing")]),
        (
            _put(TWO, manifest(2, whole()[ONE], account="b").as_json()),
            [(TWO, "revision_differs", "differs from the one in its successor")],
        ),
        (
            _put(TWO, manifest(7, whole()[ONE]).as_json()),
            [
                (TWO, "revision_differs", "number is 7"),
                (TWO, "revision_differs", "differs from the one in its successor"),
            ],
        ),
        (
            _put(ONE, manifest(1, b"x").as_json()),
            [(ONE, "revision_differs", "contradict each other"), (ONE, "revision_differs", "hash differs")],
        ),
        (
            _put(CURRENT, manifest(3).as_json()),
            [(CURRENT, "revision_differs", "contradict each other"), (TWO, "revision_differs", "")],
        ),
        (_put(THREE, manifest(3, b"x").as_json()), [(THREE, "revision_differs", "number of the current manifest")]),
        (_put(THREE, whole()[CURRENT]), []),
    ],
)
async def test_each_break_of_the_chain_is_reported_at_its_revision(
    damage: Callable[[Objects], Objects], told: list[tuple[str, str, str]]
) -> None:
    found = (await chain_of(damage(whole()))).differences
    assert [(each.key, each.problem.value) for each in found] == [(key, problem) for key, problem, _ in told]
    assert all(words in each.detail for each, (_, _, words) in zip(found, told, strict=True)), found


async def test_a_revision_that_disappears_is_missing() -> None:
    objects = whole()
    bucket = await holding(_lost(TWO)(objects))
    found = (await read_chain(bucket, EVALUATION, listed(objects))).differences
    assert [(each.key, each.problem.value) for each in found] == [(TWO, "revision_missing")]
    assert "no longer exists" in found[0].detail
