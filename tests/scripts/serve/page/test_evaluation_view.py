"""The view of one evaluation shows the archive and the ledger, and logs its user."""

import html
import json
import re
from pathlib import Path

import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from tasks.model.outcome import Evidence, Outcome
from tasks.storage.local_bucket import LocalBucket
from tasks.storage.revision import amend
from tests.archived_bundles import EVALUATION, archive_bundle, archive_tombstone, archive_withheld
from tests.archives import NAMES, archive, eval_ids
from tests.disposals import CERTIFICATE, dispose
from tests.scripts.serve.page.conftest import PageUser, add_dead_letters, archive_revisions
from tests.scripts.serve.page.test_views import text_of
from tests.zips import zip_of

UNKNOWN = eval_ids(1, seed=5)[0]


async def test_a_manifest_is_shown_and_the_view_is_logged(operator: PageUser, archived: str) -> None:
    with capture_logs() as logged:
        text = (await operator.get_page(f"/page/evaluation?id={archived.upper()}")).body.decode()
    for fact in (">Archived<", ">Backfill</span>, run", ">q3</a>", "2026-11-23 04:00:00 UTC", ">Front</span>"):
        assert fact in text
    assert text.count("superseded</span>") == 3
    assert "<img" not in text, "pictures are shown only on request"
    (line,) = (each for each in logged if each["event"] == "evaluation.viewed")
    assert (line["actor"], line["role"], line["eval_id"]) == ("operator", "operator", archived)


async def test_the_view_shows_documents_in_the_archive_and_those_still_at_riskos(
    operator: PageUser, tmp_path: Path
) -> None:
    bucket, page = LocalBucket(tmp_path / "archive"), f"/page/evaluation?id={EVALUATION.eval_id}"
    files = {"front.jpg": b"\xff\xd8\xff front", "selfie.jpg": b"\xff\xd8\xff selfie"}
    steps = (
        (archive_bundle(bucket, zip_of(files)), "all of them, when last asked <time", 0),
        (archive_bundle(bucket, zip_of({"front.jpg": files["front.jpg"]})), "some of them, when last asked", 1),
        (archive_tombstone(bucket), "none of them, when last asked <time", 2),
    )
    for step, at_riskos, no_longer in steps:
        await step
        text = (await operator.get_page(page)).body.decode()
        assert "<dt>The archive holds</dt><dd>2 documents, 19 B</dd>" in text
        assert f"<dt>RiskOS still had</dt><dd>{at_riskos}" in text
        assert text.count("no longer at RiskOS</span>") == no_longer
        assert ">Archived</span></dd>" in text
    assert "400: No Documents Found" in text
    pictures = (await operator.get_page(f"{page}&pictures")).body.decode()
    assert pictures.count("<img") == 2


async def test_the_view_lists_disposed_documents(operator: PageUser, tmp_path: Path) -> None:
    bucket, page = LocalBucket(tmp_path / "archive"), f"/page/evaluation?id={EVALUATION.eval_id}"
    await archive_bundle(
        bucket, zip_of({"its-names/front.jpg": b"\xff\xd8\xff front", "its-names/selfie.jpg": b"\xff\xd8\xff selfie"})
    )
    await dispose(bucket, EVALUATION, lambda document: document.kind == "selfie")
    await amend(bucket, EVALUATION, lambda before: before.model_copy(update={"matters": ("acme-v-bolt",)}))
    text = (await operator.get_page(page)).body.decode()
    assert "<dt>The archive holds</dt><dd>1 document, 9 B; 1 was disposed of</dd>" in text
    assert "<dt>Legal holds</dt><dd>acme-v-bolt</dd>" in text
    table = text.partition("<h2>Disposed of</h2>")[2].partition("</table>")[0]
    for fact in (">Selfie</span>", "2025-02-01 04:00:00 UTC", "five-years", "archived, 2020-01-31", CERTIFICATE):
        assert fact in table
    assert text.count("its-names") == 1
    await dispose(bucket, EVALUATION)
    text = (await operator.get_page(page)).body.decode()
    assert '<dt>Outcome</dt><dd><span class="dot o-disposed"></span>' in text
    assert "<dt>The archive holds</dt><dd>no documents; 2 were disposed of</dd>" in text
    assert "<dt>RiskOS still had</dt>" not in text
    several = (await operator.get_page(f"{page}%20{UNKNOWN}")).body.decode()
    assert ">Disposed of</span>" in several


async def test_a_former_revision_shows_no_picture_of_a_disposed_document(operator: PageUser, tmp_path: Path) -> None:
    bucket, page = LocalBucket(tmp_path / "archive"), f"/page/evaluation?id={EVALUATION.eval_id}"
    await archive_bundle(bucket, zip_of({"front.jpg": b"\xff\xd8\xff front", "selfie.jpg": b"\xff\xd8\xff selfie"}))
    links = re.findall(r'src="(/page/pictures/[^"]+)"', (await operator.get_page(f"{page}&pictures")).body.decode())
    await dispose(bucket, EVALUATION, lambda document: document.kind == "selfie")
    text = (await operator.get_page(f"{page}&revision=1&pictures")).body.decode()
    assert (text.count("<figure>"), text.count("<img"), text.count(">disposed of</span>")) == (2, 1, 1)
    answers = [await operator.get_page(html.unescape(link)) for link in links]
    assert [answer.status for answer in answers] == [200, 404]
    assert "was disposed of on 2025-02-01 under the rule five-years" in html.unescape(answers[1].body.decode())


async def test_the_view_reports_images_that_must_not_be_kept(operator: PageUser, tmp_path: Path) -> None:
    bucket, page = LocalBucket(tmp_path / "archive"), f"/page/evaluation?id={EVALUATION.eval_id}"
    await archive_withheld(bucket, EVALUATION, (Evidence.UNDER_AGE,))
    text = (await operator.get_page(page)).body.decode()
    assert ">Minor</span> (reason_code:R844): 3 documents, 1 kB withheld</dd>" in text
    assert ">Withheld</span></dd>" in text
    await archive_bundle(bucket, zip_of({"front.jpg": b"front"}), EVALUATION, (Evidence.MILITARY_ID,))
    assert ">Military ID</span> (document_type:Military)</dd>" in (await operator.get_page(page)).body.decode()


async def test_invisible_characters_of_a_name_are_shown_as_escapes(operator: PageUser, tmp_path: Path) -> None:
    name = "fr\u202egpj.exe \u2066\u200b\ufeff\x1b[31m\x7f\x85\n\u3164\ufe0f\U000e0041 日本\u3000é"
    await archive_bundle(LocalBucket(tmp_path / "archive"), zip_of({name: b"content"}))
    text = (await operator.get_page(f"/page/evaluation?id={EVALUATION.eval_id}")).body.decode()
    shown = r"fr\u202egpj.exe \u2066\u200b\ufeff\x1b[31m\x7f\x85\n\u3164\ufe0f\U000e0041 日本" + "\u3000é"
    assert f'class="name">{shown}</span>' in text


async def test_only_operators_see_names_from_a_bundle(operator: PageUser, viewer: PageUser, archived: str) -> None:
    path = f"/page/evaluation?id={archived}"
    assert NAMES[0] in (await operator.get_page(path)).body.decode().replace("<wbr>", "")
    body = (await viewer.get_page(path + "&pictures")).body.decode()
    assert ">Front</span>" in body
    assert not any(name in body.replace("<wbr>", "") for name in NAMES)
    assert "/page/pictures/" not in body


async def test_a_former_revision_is_found_through_the_chain(operator: PageUser, archived: str) -> None:
    current = (await operator.get_page(f"/page/evaluation?id={archived}")).body.decode()
    assert f'href="/page/evaluation?id={archived}&amp;revision=1"' in current
    former = (await operator.get_page(f"/page/evaluation?id={archived}&revision=1")).body.decode()
    assert "1, an earlier one" in former
    assert "superseded</span>" not in former


async def test_a_missing_revision_is_reported(operator: PageUser, archived: str) -> None:
    answer = await operator.get_page(f"/page/evaluation?id={archived}&revision=9")
    assert (answer.status, "there is no revision 9" in answer.body.decode()) == (404, True)


async def test_the_view_shows_the_ledgers_state_when_there_is_no_manifest(
    operator: PageUser, redis: Redis, eval_id: str
) -> None:
    assert (
        "not in the archive and not under way"
        in (await operator.get_page(f"/page/evaluation?id={eval_id}")).body.decode()
    )
    await add_dead_letters(redis, [eval_id])
    text = (await operator.get_page(f"/page/evaluation?id={eval_id}")).body.decode()
    assert "Dead letter:</strong> RiskOS answered with status 503" in text
    assert f"/page/redrive?eval_id={eval_id}" in text


async def test_a_tombstone_is_shown_with_the_answer_of_riskos(operator: PageUser, tmp_path: Path, eval_id: str) -> None:
    bucket = await archive_revisions(tmp_path, eval_id, revisions=0)
    await archive(bucket, eval_id, Outcome.NOT_FOUND)
    text = (await operator.get_page(f"/page/evaluation?id={eval_id}")).body.decode()
    assert ">Not found</span>" in text
    assert "<h2>Documents</h2>" not in text


@pytest.mark.parametrize("change", [{"schema": 2}, {"eval_id": "0b54a4d4-6e5b-4f3c-9d2a-7c1f0e8b9a10"}])
async def test_an_invalid_manifest_is_not_shown(
    operator: PageUser, tmp_path: Path, archived: str, change: dict[str, object]
) -> None:
    path = tmp_path / "archive" / "sandbox" / archived / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | change), "utf-8")
    answer = await operator.get_page(f"/page/evaluation?id={archived}")
    assert answer.status == 502
    assert "manifest" in answer.body.decode()


async def test_the_form_is_shown_without_a_log_line_when_there_is_no_id(viewer: PageUser) -> None:
    with capture_logs() as logged:
        assert 'name="id"' in (await viewer.get_page("/page/evaluation?id=%20")).body.decode()
    assert [each["event"] for each in logged] == ["request.answered"]


async def test_a_dead_letter_is_shown_with_reason_attempts_time_and_run(
    operator: PageUser, redis: Redis, eval_id: str
) -> None:
    await add_dead_letters(redis, [eval_id], run="q3")
    text = text_of((await operator.get_page(f"/page/evaluation?id={eval_id}")).body)
    assert re.search(r"Dead letter: RiskOS answered with status 503 6 attempts, the last one [^;]* ; run q3", text)


async def test_documents_are_shown_with_type_size_and_breakable_name(operator: PageUser, tmp_path: Path) -> None:
    await archive_bundle(LocalBucket(tmp_path / "archive"), zip_of({"a_folder/front_side.jpg": b"\xff\xd8\xff front"}))
    text = (await operator.get_page(f"/page/evaluation?id={EVALUATION.eval_id}")).body.decode()
    assert ">JPEG</span>, 9 B<" in text
    assert 'class="name">a_<wbr>folder/<wbr>front_<wbr>side.jpg</span>' in text


@pytest.mark.parametrize("separator", ["%20", "%0D%0A", ",", "%3B%20"])
async def test_several_ids_are_looked_up_in_one_request(
    viewer: PageUser, redis: Redis, archived: str, eval_id: str, separator: str
) -> None:
    dead, unknown = eval_ids(2)
    await add_dead_letters(redis, [dead])
    ids = separator.join([archived.upper(), dead, "nonsense", unknown, archived])
    with capture_logs() as logged:
        body = (await viewer.get_page(f"/page/evaluation?id={ids}")).body
    text = text_of(body)
    assert "1 invalid ID was left out" in text
    assert f"{archived} Archived Finished 6 " in text
    assert f"{dead} Not in the archive Dead letter : RiskOS failed 0 never" in text
    assert f"{unknown} Not in the archive Unknown 0 never" in text
    assert f'href="/page/evaluation?id={dead}"' in body.decode()
    (line,) = (each for each in logged if each["event"] == "evaluations.viewed")
    assert line["eval_ids"] == (archived, dead, unknown)


async def test_too_many_ids_in_one_request_are_refused(viewer: PageUser) -> None:
    answer = await viewer.get_page("/page/evaluation?id=" + "+".join(eval_ids(51)))
    assert (answer.status, "at most 50 evaluations at once" in answer.body.decode().lower()) == (400, True)
