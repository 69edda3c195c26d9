"""Another site can make a browser send the login. That alone is not enough for an action."""

import pytest
from redis.asyncio import Redis

from tasks.ledger.ledger import Ledger
from tests.archives import eval_ids
from tests.scripts.serve.conftest import Client
from tests.scripts.serve.page.conftest import PageUser, add_dead_letters

FORM = {"cause": "service_failed"}


@pytest.fixture(autouse=True)
async def _one_dead_letter(redis: Redis) -> None:
    await add_dead_letters(redis, eval_ids(1))


@pytest.mark.parametrize("site", ["cross-site", "same-site", "none", "", "SAME-ORIGIN"])
async def test_a_request_of_another_site_is_refused_even_with_a_valid_token(
    operator: PageUser, redis: Redis, site: str
) -> None:
    answer = await operator.post("/page/redrive", FORM | {"token": await operator.token()}, Sec_Fetch_Site=site)
    assert (answer.status, "another site" in answer.body.decode()) == (403, True)
    assert (await Ledger(redis).get_stats()).dead_letters == 1


@pytest.mark.parametrize("origin", ["https://elsewhere.example", "null", "http://127.0.0.1:1", "file://"])
async def test_a_request_of_another_origin_is_refused_when_only_the_origin_is_sent(
    operator: PageUser, origin: str
) -> None:
    answer = await operator.post("/page/redrive", FORM | {"token": await operator.token()}, Origin=origin)
    assert answer.status == 403


async def test_a_request_of_the_page_itself_is_accepted(operator: PageUser, client: Client, redis: Redis) -> None:
    form = FORM | {"token": await operator.token()}
    assert (await operator.post("/page/redrive", form, Origin=client.url)).status == 200
    assert (await operator.post("/page/redrive", form, Sec_Fetch_Site="same-origin")).status == 200
    assert (await Ledger(redis).get_stats()).dead_letters == 0


@pytest.mark.parametrize("token", [None, "", "0" * 64, "é"])
async def test_a_form_without_a_valid_token_is_refused(operator: PageUser, redis: Redis, token: str | None) -> None:
    answer = await operator.post("/page/redrive", FORM if token is None else FORM | {"token": token})
    assert answer.status == 403
    assert (await Ledger(redis).get_stats()).dead_letters == 1
