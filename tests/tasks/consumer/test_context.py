"""Each account has a line of its own; bucket, gate, memory and shelf are those of the process."""

from contextlib import AbstractAsyncContextManager, nullcontext
from pathlib import Path

from redis.asyncio import Redis

from tasks.consumer.context import AccountContexts
from tasks.model.job import Job, Queue
from tasks.resilience.rate_limiter import RateLimiter
from tasks.storage.local_bucket import LocalBucket
from worker.config.accounts import load_accounts
from worker.config.settings import load_settings
from worker.resources import open_resources


async def confirm(_: Job) -> None:
    pass


def place(_: Queue) -> AbstractAsyncContextManager[None]:
    return nullcontext()


async def test_what_is_an_account_s_own_is_apart_and_the_rest_is_one(
    redis: Redis, redis_url: str, tmp_path: Path
) -> None:
    file = tmp_path / "accounts.toml"
    file.write_text('[kyb]\napi_key = "key-of-kyb"\nenvironment = "production"\nshares_rate_with = "aml"\n')
    with file.open("a") as more:
        more.write('[aml]\napi_key = "key-of-aml"\nenvironment = "production"\nrate = 3\nclient_cert = "aml.pem"\n')
    settings = load_settings(redis_url=redis_url, api_key="key-of-ours", accounts=file)
    accounts = load_accounts(settings)
    without_certificate = [each for each in accounts if each.name != "aml"]
    async with open_resources(settings, without_certificate) as resources:
        assert resources.http["default"] is resources.http["kyb"]
        accounts = type(accounts)({each.name: each for each in without_certificate})
        lines = AccountContexts(
            settings,
            accounts,
            resources,
            LocalBucket(tmp_path),
            RateLimiter(redis),
            acquire_slot=place,
            confirm_lease=confirm,
        )
        ours, theirs = lines.get("default"), lines.get("kyb")
        assert ours is not None
        assert theirs is not None
        assert lines.get("nobody") is None
        assert (ours.client.account.environment, theirs.client.account.environment) == ("sandbox", "production")
        assert theirs.client.account.allowance.shared_with == "aml"
        assert theirs.client.account.allowance.rate == 3
        assert ours.client.adaptive_rate is not theirs.client.adaptive_rate
        assert ours.gate is theirs.gate is lines.gate
        assert (ours.unpacker, ours.target, ours.manifests) == (theirs.unpacker, theirs.target, theirs.manifests)


async def test_success_with_the_archive_is_told_once_for_all_accounts(
    redis: Redis, redis_url: str, tmp_path: Path
) -> None:
    file = tmp_path / "accounts.toml"
    file.write_text("".join(f'[a{number}]\napi_key = "key-{number}"\n' for number in range(5)))
    settings = load_settings(redis_url=redis_url, accounts=file)
    accounts = load_accounts(settings)
    async with open_resources(settings, accounts) as resources:
        lines = AccountContexts(
            settings,
            accounts,
            resources,
            LocalBucket(tmp_path),
            RateLimiter(redis),
            acquire_slot=place,
            confirm_lease=confirm,
        )
        await redis.rpush("docv:breaker:@archive", "one-that-failed")
        for name in lines.names:
            means = lines.get(name)
            assert means is not None
            means.client.breaker.record_success()
        await lines.flush()
        await lines.flush()
    assert await redis.lrange("docv:breaker:@archive", 0, -1) == ["one-that-failed", *"+++++"]
