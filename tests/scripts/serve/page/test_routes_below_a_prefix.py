"""Below a path prefix, every link of the page stays below the prefix and works."""

import html
import re
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlencode

import aiohttp
import pytest
from redis.asyncio import Redis

from tests.archives import eval_ids
from tests.scripts.serve.conftest import OPERATOR, TOKEN, Client, basic, event, running_client, settings_for
from tests.scripts.serve.page.conftest import PageUser, archive_revisions, fill_redis

PREFIX = "/ops/docv"
LINK = re.compile(r'(?:href|src|hx-get)="([^"#]*)"')
FORM = re.compile(r'action="([^"]*)"')


@pytest.fixture
async def client(redis: Redis, redis_url: str, tmp_path: Path) -> AsyncIterator[Client]:
    async with running_client(settings_for(redis_url, tmp_path, path_prefix=PREFIX + "/")) as client:
        yield client


async def test_every_link_form_and_asset_exists_below_the_prefix(
    operator: PageUser, redis: Redis, tmp_path: Path, eval_id: str
) -> None:
    await fill_redis(redis, eval_ids(20))
    await archive_revisions(tmp_path, eval_id, revisions=2)
    found, visited = {f"{PREFIX}/", PREFIX, f"{PREFIX}/page/evaluation?id={eval_id}&pictures"}, set[str]()
    while left := found - visited:
        path = left.pop()
        visited.add(path)
        answer = await operator.get_page(path)
        assert answer.status in {200, 204}, path
        if answer.headers.get("Content-Type", "").startswith("text/html"):
            found |= {html.unescape(link) for link in LINK.findall(answer.body.decode())}
            assert all(form.startswith(f"{PREFIX}/page/") for form in FORM.findall(answer.body.decode()))
    assert all(path == PREFIX or path.startswith(f"{PREFIX}/") for path in visited)
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
        assert any(path.startswith(f"{PREFIX}/{part}") for path in visited), part


async def test_a_form_is_accepted_and_redirects_below_the_prefix(
    operator: PageUser, client: Client, redis: Redis
) -> None:
    await fill_redis(redis, eval_ids(20))
    form = operator.fields(await operator.get_page(f"{PREFIX}/page/resume?scope=default"))
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
            location = answer.headers["Location"]
            assert (answer.status, location) == (303, f"{PREFIX}/?did=resumed&count=1&left=0")
    assert "Resumed." in (await operator.get_page(location)).body.decode()


async def test_the_page_works_when_a_proxy_removes_the_prefix(operator: PageUser) -> None:
    answer = await operator.get_page("/page/runs")
    assert (answer.status, f'href="{PREFIX}/page/runs"' in answer.body.decode()) == (200, True)


async def test_other_paths_work_with_the_prefix_and_similar_paths_do_not(
    operator: PageUser, client: Client, eval_id: str
) -> None:
    assert (await client.send("GET", f"{PREFIX}/livez")).status == 200
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    assert (await client.send("POST", f"{PREFIX}/webhooks/riskos", event(eval_id), **bearer)).status == 200
    assert f'route="{PREFIX}' not in await client.metrics()
    for path in (f"{PREFIX}x/page/runs", f"{PREFIX}/{PREFIX}/page/runs", "/OPS/docv/page/runs", f"{PREFIX}//page/runs"):
        assert (await operator.get_page(path)).status == 404, path
