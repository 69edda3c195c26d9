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
from tests.archives import FolderEditor, eval_ids, store_run

LIST = "runs/sandbox/q3/run.json"


@pytest.fixture
async def editor(tmp_path: Path) -> FolderEditor:
    await store_run(LocalBucket(tmp_path), eval_ids(3), "q3")
    return FolderEditor(tmp_path)


def piece_key(editor: FolderEditor) -> str:
    return next(key for key in editor.listed() if key.endswith(".txt.gz"))


async def find_problems(
    editor: FolderEditor, *, young: float = 1e12, more: tuple[ListedObject, ...] = ()
) -> list[tuple[str, str]]:
    ctx = VerifyContext(LocalBucket(editor.root), LocalObjectLister(editor.root), young=young)
    objects = (*await ctx.objects("runs/sandbox/q3/"), *more)
    differences = await check_run(ctx, ObjectGroup(place_of(LIST), objects))
    assert ctx.progress.runs == 1
    return [(each.key, each.problem.value) for each in differences]


async def test_an_intact_run_list_has_no_differences(editor: FolderEditor) -> None:
    assert await find_problems(editor) == []


async def test_a_suspected_difference_is_checked_again(editor: FolderEditor) -> None:
    assert (
        await find_problems(
            editor, more=(ListedObject("runs/sandbox/q3/gone", 1, 0.0), ListedObject("runs/x", IRREGULAR, 0.0))
        )
        == []
    )


def _damage(change: Callable[[dict], None]) -> Callable[[FolderEditor], None]:  # type: ignore[type-arg]
    def damage(editor: FolderEditor) -> None:
        run = json.loads(editor.get(LIST))
        change(run)
        editor.put(LIST, json.dumps(run).encode())

    return damage


@pytest.mark.parametrize(
    "damage",
    [
        lambda editor: editor.put(LIST, b"{"),
        lambda editor: editor.put(LIST, b""),
        _damage(lambda run: run.update(schema=2)),
        _damage(lambda run: run.update(run="q4")),
        _damage(lambda run: run.update(environment="production")),
        _damage(lambda run: run["source"].update(ids=4)),
        _damage(lambda run: run["source"].update(fingerprint="0" * 64)),
    ],
)
async def test_an_invalid_list_or_the_list_of_another_run_is_damaged(
    editor: FolderEditor, damage: Callable[[FolderEditor], None]
) -> None:
    damage(editor)
    assert await find_problems(editor) == [(LIST, "run_damaged")]


@pytest.mark.parametrize("data", [b"", b"no gzip"])
async def test_a_damaged_piece_is_reported(editor: FolderEditor, data: bytes) -> None:
    editor.put(key := piece_key(editor), data)
    assert await find_problems(editor) == [(key, "run_damaged")]


async def test_a_missing_piece_is_reported(editor: FolderEditor) -> None:
    editor.delete(key := piece_key(editor))
    assert await find_problems(editor) == [(key, "run_damaged")]


async def test_an_unlisted_piece_is_an_orphan_once_it_is_old(editor: FolderEditor) -> None:
    editor.put("runs/sandbox/q3/added", b"x")
    assert await find_problems(editor) == [("runs/sandbox/q3/added", "orphan")]
    assert await find_problems(editor, young=0.0) == []
    editor.delete("runs/sandbox/q3/added")
    editor.delete(LIST)
    assert await find_problems(editor) == [(piece_key(editor), "orphan")]


async def test_a_piece_outside_of_the_run_is_reported_and_not_read(editor: FolderEditor) -> None:
    _damage(lambda run: run["pieces"][0].update(key="../outside"))(editor)
    assert sorted(await find_problems(editor)) == [("../outside", "key_outside"), (piece_key(editor), "orphan")]
