"""The page below a path prefix: each of its links is below it, too, and works."""

import html
import re
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlencode

import aiohttp
import pytest
from redis.asyncio import Redis

from tests.archives import eval_ids
from tests.scripts.serve.conftest import OPERATOR, TOKEN, Client, basic, event, opened, settings_for
from tests.scripts.serve.page.conftest import Person, keep, some_of_every_sort

PREFIX = "/ops/docv"
LINK = re.compile(r'(?:href|src|hx-get)="([^"#]*)"')
FORM = re.compile(r'action="([^"]*)"')


@pytest.fixture
async def client(redis: Redis, redis_url: str, tmp_path: Path) -> AsyncIterator[Client]:
    async with opened(settings_for(redis_url, tmp_path, path_prefix=PREFIX + "/")) as client:
        yield client


async def test_every_link_form_and_asset_exists_below_the_prefix(
    operator: Person, redis: Redis, tmp_path: Path, eval_id: str
) -> None:
    await some_of_every_sort(redis, eval_ids(20))
    await keep(tmp_path, eval_id, revisions=2)
    found, seen = {f"{PREFIX}/", PREFIX, f"{PREFIX}/page/evaluation?id={eval_id}&pictures"}, set[str]()
    while left := found - seen:
        path = left.pop()
        seen.add(path)
        answer = await operator.see(path)
        assert answer.status in {200, 204}, path
        if answer.headers.get("Content-Type", "").startswith("text/html"):
            found |= {html.unescape(link) for link in LINK.findall(answer.body.decode())}
            assert all(form.startswith(f"{PREFIX}/page/") for form in FORM.findall(answer.body.decode()))
    assert all(path == PREFIX or path.startswith(f"{PREFIX}/") for path in seen)
    for part in (
        "page/assets/",
        "page/pictures/",
        "page/now?",
        "page/rate?",
        "page/runs",
        "page/run?",
        "page/rejected",
        "page/redrive?",
        "page/resume?",
    ):
        assert any(path.startswith(f"{PREFIX}/{part}") for path in seen), part


async def test_a_form_is_accepted_and_redirects_below_the_prefix(
    operator: Person, client: Client, redis: Redis
) -> None:
    await some_of_every_sort(redis, eval_ids(20))
    form = operator.fields(await operator.see(f"{PREFIX}/page/resume?scope=default"))
    headers = {
        "Authorization": basic(OPERATOR),
        "Origin": client.url,
        "Content-Type": "application/x-www-form-urlencoded",
    }
    async with aiohttp.ClientSession() as http:
        request = http.post(
            f"{client.url}{PREFIX}/page/resume", data=urlencode(form), headers=headers, allow_redirects=False
        )
        async with request as answer:
            where = answer.headers["Location"]
            assert (answer.status, where) == (303, f"{PREFIX}/?did=resumed&count=1&left=0")
    assert "Resumed." in (await operator.see(where)).body.decode()


async def test_the_page_works_when_a_proxy_removes_the_prefix(operator: Person) -> None:
    answer = await operator.see("/page/runs")
    assert (answer.status, f'href="{PREFIX}/page/runs"' in answer.body.decode()) == (200, True)


async def test_other_paths_work_with_the_prefix_and_similar_paths_do_not(
    operator: Person, client: Client, eval_id: str
) -> None:
    assert (await client.send("GET", f"{PREFIX}/livez")).status == 200
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    assert (await client.send("POST", f"{PREFIX}/webhooks/riskos", event(eval_id), **bearer)).status == 200
    assert f'route="{PREFIX}' not in await client.figures()
    for path in (f"{PREFIX}x/page/runs", f"{PREFIX}/{PREFIX}/page/runs", "/OPS/docv/page/runs", f"{PREFIX}//page/runs"):
        assert (await operator.see(path)).status == 404, path
