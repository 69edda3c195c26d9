"""The view of the quarantine lists every bundle, in pages, and escapes all values of a manifest."""

import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from scripts.simulator.damage import garbage
from tasks.model.evaluation import Evaluation
from tasks.storage.local_bucket import LocalBucket
from tests.archived_bundles import archive_as_unreadable, archive_bundle
from tests.archives import eval_ids
from tests.scripts.serve.page.conftest import HTML, PageUser
from tests.scripts.serve.page.test_views import text_of
from tests.zips import zip_of

FILES = {"front.jpg": b"front"}


async def quarantine(folder: Path, ids: Sequence[str]) -> LocalBucket:
    bucket = LocalBucket(folder / "archive")
    for eval_id in ids:
        await archive_as_unreadable(bucket, garbage(FILES), Evaluation(eval_id, "sandbox"))
    return bucket


async def test_a_bundle_is_shown_with_its_causes_and_the_outcome_of_its_evaluation(
    viewer: PageUser, tmp_path: Path
) -> None:
    unreadable, archived = sorted(eval_ids(2))
    bucket = await quarantine(tmp_path, [unreadable, archived])
    await archive_bundle(bucket, zip_of(FILES), Evaluation(archived, "sandbox"))
    text = text_of((await viewer.get_page("/page/quarantine")).body)
    assert re.search(rf"{unreadable} Unreadable Local header differs q3 (just now|\d+ s ago) \d+ B", text)
    assert re.search(rf"{archived} Archived unknown q3 ", text)


async def test_the_view_is_empty_when_no_bundle_is_in_quarantine(viewer: PageUser) -> None:
    assert "No bundles here." in text_of((await viewer.get_page("/page/quarantine")).body)


async def test_bundles_are_paged(viewer: PageUser, tmp_path: Path) -> None:
    ids = sorted(eval_ids(60))
    await quarantine(tmp_path, ids)
    first = (await viewer.get_page("/page/quarantine")).body.decode()
    assert [each for each in ids if each in first] == ids[:50]
    [after] = re.findall(r'rel="next" href="([^"]*)"', first)
    second = (await viewer.get_page(after)).body.decode()
    assert [each for each in ids if f">{each}<" in second] == ids[50:]
    assert 'rel="next"' not in second


@pytest.mark.parametrize("after", ["../../x", "%3Cscript%3E", "x" * 5_000])
async def test_an_invalid_position_shows_the_first_page(viewer: PageUser, tmp_path: Path, after: str) -> None:
    ids = eval_ids(1)
    await quarantine(tmp_path, ids)
    answer = await viewer.get_page(f"/page/quarantine?after={after}")
    assert (answer.status, ids[0] in answer.body.decode()) == (200, True)


async def test_html_in_a_manifest_is_escaped(viewer: PageUser, tmp_path: Path) -> None:
    [eval_id] = eval_ids(1)
    await quarantine(tmp_path, [eval_id])
    path = tmp_path / "archive" / "sandbox" / eval_id / "manifest.json"
    name = HTML.replace('"', "")
    path.write_text(path.read_text().replace("local_header_differs", name).replace('"q3"', f'"{name}"'))
    body = (await viewer.get_page("/page/quarantine")).body.decode()
    assert "<img" not in body
    assert "&lt;img" in body
