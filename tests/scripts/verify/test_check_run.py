"""The list of a run is verified: its head, its pieces, and its IDs."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from scripts.verify.check_run import check_run
from scripts.verify.context import VerifyContext
from scripts.verify.layout import ObjectGroup, place_of
from scripts.verify.local_objects import LocalObjectLister
from scripts.verify.objects_api import IRREGULAR
from tasks.storage.bucket import ListedObject
from tasks.storage.local_bucket import LocalBucket
from tests.archives import FolderHand, eval_ids, keep_run

LIST = "runs/sandbox/q3/run.json"


@pytest.fixture
async def hand(tmp_path: Path) -> FolderHand:
    await keep_run(LocalBucket(tmp_path), eval_ids(3), "q3")
    return FolderHand(tmp_path)


def piece_key(hand: FolderHand) -> str:
    return next(key for key in hand.listed() if key.endswith(".txt.gz"))


async def find_problems(
    hand: FolderHand, *, young: float = 1e12, more: tuple[ListedObject, ...] = ()
) -> list[tuple[str, str]]:
    ctx = VerifyContext(LocalBucket(hand.root), LocalObjectLister(hand.root), young=young)
    objects = (*await ctx.objects("runs/sandbox/q3/"), *more)
    differences = await check_run(ctx, ObjectGroup(place_of(LIST), objects))
    assert ctx.progress.runs == 1
    return [(each.key, each.problem.value) for each in differences]


async def test_an_intact_run_list_has_no_differences(hand: FolderHand) -> None:
    assert await find_problems(hand) == []


async def test_a_suspected_difference_is_checked_again(hand: FolderHand) -> None:
    assert (
        await find_problems(
            hand, more=(ListedObject("runs/sandbox/q3/gone", 1, 0.0), ListedObject("runs/x", IRREGULAR, 0.0))
        )
        == []
    )


def _damage(change: Callable[[dict], None]) -> Callable[[FolderHand], None]:  # type: ignore[type-arg]
    def damage(hand: FolderHand) -> None:
        run = json.loads(hand.get(LIST))
        change(run)
        hand.put(LIST, json.dumps(run).encode())

    return damage


@pytest.mark.parametrize(
    "damage",
    [
        lambda hand: hand.put(LIST, b"{"),
        lambda hand: hand.put(LIST, b""),
        _damage(lambda run: run.update(schema=2)),
        _damage(lambda run: run.update(run="q4")),
        _damage(lambda run: run.update(environment="production")),
        _damage(lambda run: run["source"].update(ids=4)),
        _damage(lambda run: run["source"].update(fingerprint="0" * 64)),
    ],
)
async def test_an_invalid_list_or_the_list_of_another_run_is_damaged(
    hand: FolderHand, damage: Callable[[FolderHand], None]
) -> None:
    damage(hand)
    assert await find_problems(hand) == [(LIST, "run_damaged")]


@pytest.mark.parametrize("data", [b"", b"no gzip"])
async def test_a_damaged_piece_is_reported(hand: FolderHand, data: bytes) -> None:
    hand.put(key := piece_key(hand), data)
    assert await find_problems(hand) == [(key, "run_damaged")]


async def test_a_missing_piece_is_reported(hand: FolderHand) -> None:
    hand.delete(key := piece_key(hand))
    assert await find_problems(hand) == [(key, "run_damaged")]


async def test_an_unlisted_piece_is_an_orphan_once_it_is_old(hand: FolderHand) -> None:
    hand.put("runs/sandbox/q3/added", b"x")
    assert await find_problems(hand) == [("runs/sandbox/q3/added", "orphan")]
    assert await find_problems(hand, young=0.0) == []
    hand.delete("runs/sandbox/q3/added")
    hand.delete(LIST)
    assert await find_problems(hand) == [(piece_key(hand), "orphan")]


async def test_a_piece_outside_of_the_run_is_reported_and_not_read(hand: FolderHand) -> None:
    _damage(lambda run: run["pieces"][0].update(key="../outside"))(hand)
    assert sorted(await find_problems(hand)) == [("../outside", "key_outside"), (piece_key(hand), "orphan")]
