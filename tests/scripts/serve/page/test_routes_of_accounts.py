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
from tests.scripts.serve.conftest import OPERATOR, opened, settings_for
from tests.scripts.serve.page.conftest import Person


@pytest.fixture
async def operator(redis: Redis, redis_url: str, tmp_path: Path) -> AsyncIterator[Person]:
    file = tmp_path / "accounts.toml"
    file.write_text('[kyb]\napi_key = "key-of-kyb"\nenvironment = "production"\nrate = 3\n')
    async with opened(settings_for(redis_url, tmp_path, accounts=file, api_key="key-of-ours")) as client:
        yield Person(client, OPERATOR)


async def get_text(operator: Person, path: str) -> str:
    answer = await operator.see(path)
    assert answer.status == 200, answer.body
    return answer.body.decode()


async def test_each_account_has_a_rate_and_a_chart(operator: Person) -> None:
    first = await get_text(operator, "/")
    for account in ("default", "kyb"):
        assert f"Rate of {account}" in first
        assert f'hx-get="/page/rate?account={account}"' in first
    assert 'class="badge production"' in first
    assert 'class="badge sandbox"' in first
    assert (await operator.see("/page/rate?account=nobody")).status == 400


async def test_resume_ends_the_hold_of_one_account_only(operator: Person, redis: Redis) -> None:
    holds = Holds(redis)
    await holds.place_manual("default", "ours")
    await holds.place_manual("kyb", "theirs")
    assert "Account kyb is on hold" in await get_text(operator, "/")
    await operator.press("/page/resume?scope=kyb")
    assert [hold.scope for hold in await holds.list_all()] == ["default"]


async def test_an_unknown_account_is_reported(operator: Person, redis: Redis, eval_id: str) -> None:
    ledger = Ledger(redis)
    await ledger.accept([eval_id], EnqueueOptions(Queue.LIVE, "a-stranger", Trigger("enqueue")))
    (entry,) = await ledger.lease([eval_id], token="ours")
    await ledger.await_hold(entry, cause="account_unknown")
    assert "Unknown account a-stranger:" in await get_text(operator, "/")


async def test_an_evaluation_and_its_documents_are_read_from_the_environment_of_its_account(
    operator: Person, tmp_path: Path, eval_id: str
) -> None:
    bucket = LocalBucket(tmp_path / "archive")
    await archive(bucket, eval_id, Outcome.ARCHIVED, documents(eval_id, 1, 2_000))
    (tmp_path / "archive" / "production").mkdir()
    assert "No manifest:" in await get_text(operator, f"/page/evaluation?id={eval_id}&account=kyb")
    body = await get_text(operator, f"/page/evaluation?id={eval_id}&account=default&pictures")
    link = body.split('src="')[1].split('"')[0].replace("&amp;", "&")
    assert (await operator.see(link)).status == 200
    assert (await operator.see(link.replace("account=default", "account=kyb"))).status == 403
