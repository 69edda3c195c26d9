"""On the page of several accounts, each one has its own rate, chart, resume button and environment."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from tasks.ledger.ledger import Ledger
from tasks.model.job import EnqueueOptions, Queue, Trigger
from tasks.model.outcome import Outcome
from tasks.resilience.holds import Holds
from tasks.storage.local_bucket import LocalBucket
from tests.archives import archive, documents
from tests.scripts.serve.conftest import OPERATOR, running_client, settings_for
from tests.scripts.serve.page.conftest import PageUser


@pytest.fixture
async def operator(redis: Redis, redis_url: str, tmp_path: Path) -> AsyncIterator[PageUser]:
    file = tmp_path / "accounts.toml"
    file.write_text('[kyb]\napi_key = "key-of-kyb"\nenvironment = "production"\nrate = 3\n')
    async with running_client(settings_for(redis_url, tmp_path, accounts=file, api_key="key-of-ours")) as client:
        yield PageUser(client, OPERATOR)


async def get_text(operator: PageUser, path: str) -> str:
    answer = await operator.get_page(path)
    assert answer.status == 200, answer.body
    return answer.body.decode()


async def test_each_account_has_a_rate_and_a_chart(operator: PageUser) -> None:
    first = await get_text(operator, "/")
    for account in ("default", "kyb"):
        assert f"Rate of {account}" in first
        assert f'hx-get="/page/rate?account={account}"' in first
    assert 'class="badge production"' in first
    assert 'class="badge sandbox"' in first
    assert (await operator.get_page("/page/rate?account=unknown")).status == 400


async def test_resume_ends_the_hold_of_one_account_only(operator: PageUser, redis: Redis) -> None:
    holds = Holds(redis)
    await holds.place_manual("default", "ours")
    await holds.place_manual("kyb", "theirs")
    assert "Account kyb is on hold" in await get_text(operator, "/")
    await operator.press("/page/resume?scope=kyb")
    assert [hold.scope for hold in await holds.list_all()] == ["default"]


async def test_an_unknown_account_is_reported(operator: PageUser, redis: Redis, eval_id: str) -> None:
    ledger = Ledger(redis)
    await ledger.accept([eval_id], EnqueueOptions(Queue.LIVE, "a-stranger", Trigger("enqueue")))
    (entry,) = await ledger.lease([eval_id], token="ours")
    await ledger.await_hold(entry, cause="account_unknown")
    assert "Unknown account a-stranger:" in await get_text(operator, "/")


async def test_an_evaluation_and_its_documents_are_read_from_the_environment_of_its_account(
    operator: PageUser, tmp_path: Path, eval_id: str
) -> None:
    bucket = LocalBucket(tmp_path / "archive")
    await archive(bucket, eval_id, Outcome.ARCHIVED, documents(eval_id, 1, 2_000))
    (tmp_path / "archive" / "production").mkdir()
    assert "No manifest:" in await get_text(operator, f"/page/evaluation?id={eval_id}&account=kyb")
    body = await get_text(operator, f"/page/evaluation?id={eval_id}&account=default&pictures")
    link = body.split('src="')[1].split('"')[0].replace("&amp;", "&")
    assert (await operator.get_page(link)).status == 200
    assert (await operator.get_page(link.replace("account=default", "account=kyb"))).status == 403
