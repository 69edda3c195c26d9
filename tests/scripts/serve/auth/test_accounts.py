"""Each account of a server has its own webhook secrets. Other callers do not learn which accounts exist."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from tasks.ledger.ledger import Ledger
from tests.scripts.serve.conftest import TOKEN, Client, Response, event, running_client, settings_for

KYB_TOKEN = "token-of-the-webhook-of-kyb"
FILE = f"""
[kyb]
api_key = "key-of-kyb"
environment = "production"
webhook_secrets = ["{KYB_TOKEN}"]

[aml]
api_key = "key-of-aml"
"""


def write_accounts(folder: Path) -> Path:
    file = folder / "accounts.toml"
    file.write_text(FILE)
    return file


@pytest.fixture
async def client(redis: Redis, redis_url: str, tmp_path: Path) -> AsyncIterator[Client]:
    settings = settings_for(redis_url, tmp_path, accounts=write_accounts(tmp_path), api_key="key-of-ours")
    async with running_client(settings) as client:
        yield client


async def deliver(client: Client, path: str, token: str | None, eval_id: str, environment: str = "Sandbox") -> Response:
    payload = event(eval_id, data={"environment_name": environment})
    return await client.send("POST", path, payload, **({"Authorization": f"Bearer {token}"} if token else {}))


@pytest.mark.parametrize(
    ("path", "token", "account", "environment"),
    [
        ("/webhooks/riskos", TOKEN, "default", "Sandbox"),
        ("/webhooks/riskos/default", TOKEN, "default", "Sandbox"),
        ("/webhooks/riskos/kyb", KYB_TOKEN, "kyb", "Production"),
        ("/webhooks/riskos/aml", TOKEN, "aml", "Sandbox"),
    ],
)
async def test_an_event_belongs_to_the_account_in_its_address(  # noqa: PLR0917  # four of them are one case
    client: Client, redis: Redis, eval_id: str, path: str, token: str, account: str, environment: str
) -> None:
    answer = await deliver(client, path, token, eval_id, environment)
    assert (answer.status, answer.json) == (200, {"result": "accepted"})
    (entry,) = await Ledger(redis).lease([eval_id], token="t")
    assert entry.account == account


@pytest.mark.parametrize(
    ("path", "token"),
    [
        ("/webhooks/riskos/kyb", TOKEN),
        ("/webhooks/riskos", KYB_TOKEN),
        ("/webhooks/riskos/aml", KYB_TOKEN),
        ("/webhooks/riskos/kyb", None),
        ("/webhooks/riskos/nobody", None),
        ("/webhooks/riskos/nobody", "a-wrong-token"),
    ],
)
async def test_the_secret_of_an_account_is_refused_by_the_webhook_of_another(
    client: Client, redis: Redis, eval_id: str, path: str, token: str | None
) -> None:
    answer = await deliver(client, path, token, eval_id, "Production")
    assert answer.status == 401
    assert not await redis.exists("docv:ledger:entries")


@pytest.mark.parametrize("token", [TOKEN, KYB_TOKEN])
async def test_an_unknown_account_is_reported_to_callers_with_a_valid_secret_only(
    client: Client, eval_id: str, token: str
) -> None:
    answer = await deliver(client, "/webhooks/riskos/nobody", token, eval_id)
    assert (answer.status, answer.json) == (404, {"error": "there is no such account"})
    assert 'docv_webhook_events_total{result="unknown_account"} 1.0' in await client.metrics()


async def test_an_event_of_another_environment_than_its_accounts_is_ignored(
    client: Client, redis: Redis, eval_id: str
) -> None:
    answer = await deliver(client, "/webhooks/riskos/kyb", KYB_TOKEN, eval_id, "Sandbox")
    assert answer.json == {"result": "other_environment"}
    assert not await redis.exists("docv:ledger:entries")


async def test_ids_are_submitted_for_an_account(client: Client, redis: Redis, eval_id: str) -> None:
    assert (await client.submit({"eval_ids": [eval_id], "account": "kyb"})).status == 202
    (entry,) = await Ledger(redis).lease([eval_id], token="t")
    assert entry.account == "kyb"


@pytest.mark.parametrize("account", ["nobody", "", "KYB"])
async def test_ids_for_an_unknown_account_are_refused(client: Client, redis: Redis, eval_id: str, account: str) -> None:
    answer = await client.submit({"eval_ids": [eval_id], "account": account})
    assert (answer.status, answer.json) == (422, {"error": "there is no such account"})
    assert not await redis.exists("docv:ledger:entries")


async def test_an_evaluation_is_read_from_the_environment_of_its_account(
    client: Client, tmp_path: Path, eval_id: str
) -> None:
    folder = tmp_path / "archive" / "production" / eval_id
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(json.dumps({}))
    assert (await client.look_up(eval_id)).status == 404
    assert (await client.look_up(f"{eval_id}?account=kyb")).status == 502, "its manifest exists, and is damaged"
    assert (await client.look_up(f"{eval_id}?account=unknown")).status == 400


async def test_an_account_must_be_named_when_there_is_no_default(
    redis: Redis, redis_url: str, tmp_path: Path, eval_id: str
) -> None:
    async with running_client(settings_for(redis_url, tmp_path, accounts=write_accounts(tmp_path))) as client:
        error = {"error": "name an account: no account is called default"}
        delivered = await deliver(client, "/webhooks/riskos", TOKEN, eval_id)
        submitted = await client.submit({"eval_ids": [eval_id]})
        assert [(each.status, each.json) for each in (delivered, submitted)] == [(404, error), (422, error)]
        assert (await client.look_up(eval_id)).status == 400
