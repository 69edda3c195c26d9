"""The contexts of the accounts: the parts of each account, and the parts that all share."""

from collections.abc import Coroutine
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from redis.asyncio import Redis

from tasks.consumer.concurrency import ConcurrencyLimiter
from tasks.consumer.context import AccountContexts, SharedParts, make_account_contexts
from tasks.consumer.prefetch import PrefetchControl
from tasks.ledger.leases import LeaseKeeper
from tasks.ledger.ledger import Ledger
from tasks.ledger.leftovers import Leftovers
from tasks.ledger.worker_registry import WorkerRegistry
from tasks.model.job import Queue
from tasks.resilience.holds import Holds
from tasks.resilience.rate_limiter import RateLimiter
from tasks.resilience.worker_pause import WorkerPause
from tasks.retention.schedule import load_schedule
from tasks.storage.bucket import Bucket, ObjectAttributes
from tasks.storage.local_bucket import LocalBucket
from tasks.storage.open_bucket import open_bucket
from tests.conftest import S3
from worker.config.accounts import Accounts, load_accounts
from worker.config.settings import Settings, load_settings
from worker.resources import Resources, open_resources


async def acquire(semaphore: Coroutine[Any, Any, bool]) -> bool:
    return await semaphore


def make_contexts(settings: Settings, accounts: Accounts, resources: Resources, bucket: Bucket) -> AccountContexts:
    redis, holds = resources.redis, Holds(resources.redis)
    shared = SharedParts(
        bucket=bucket,
        holds=holds,
        rate_limiter=RateLimiter(redis),
        pause=WorkerPause(WorkerRegistry(redis), holds, "one"),
        concurrency=ConcurrencyLimiter(4, acquire, PrefetchControl(4, lambda _: None)),
        leases=LeaseKeeper(Ledger(redis)),
        leftovers=Leftovers(redis),
        schedule=load_schedule(settings),
    )
    return make_account_contexts(settings, accounts, resources, shared)


async def test_contexts_share_everything_but_the_client_of_their_account(
    redis: Redis, redis_url: str, tmp_path: Path
) -> None:
    file = tmp_path / "accounts.toml"
    file.write_text('[kyb]\napi_key = "key-of-kyb"\nenvironment = "production"\nshares_rate_with = "aml"\n')
    with file.open("a") as more:
        more.write('[aml]\napi_key = "key-of-aml"\nenvironment = "production"\nrate = 3\nclient_cert = "aml.pem"\n')
    rules = tmp_path / "retention.toml"
    rules.write_text('[[rule]]\nname = "a"\nkeep_for = "5y"\nclock = "archived"\n')
    settings = load_settings(redis_url=redis_url, api_key="key-of-ours", accounts=file, retention=rules)
    accounts = load_accounts(settings)
    without_certificate = [each for each in accounts if each.name != "aml"]
    async with open_resources(settings, without_certificate) as resources:
        assert resources.http["default"] is resources.http["kyb"]
        accounts = type(accounts)({each.name: each for each in without_certificate})
        contexts = make_contexts(settings, accounts, resources, LocalBucket(tmp_path))
        default, kyb = contexts.get("default"), contexts.get("kyb")
        assert default is not None
        assert kyb is not None
        assert contexts.get("unknown") is None
        assert (default.client.account.environment, kyb.client.account.environment) == ("sandbox", "production")
        assert kyb.client.account.allowance.shared_with == "aml"
        assert kyb.client.account.allowance.rate == 3
        assert default.client.adaptive_rate is not kyb.client.adaptive_rate
        assert default.gate is kyb.gate is contexts.gate
        assert (default.unpacker, default.target, default.manifests) == (kyb.unpacker, kyb.target, kyb.manifests)
        assert default.retention == kyb.retention
        assert default.retention.schedule == load_schedule(settings) is not None


async def test_flush_reports_a_success_with_the_archive_once_for_all_accounts(
    redis: Redis, redis_url: str, tmp_path: Path
) -> None:
    file = tmp_path / "accounts.toml"
    file.write_text("".join(f'[a{number}]\napi_key = "key-{number}"\n' for number in range(5)))
    settings = load_settings(redis_url=redis_url, accounts=file)
    accounts = load_accounts(settings)
    async with open_resources(settings, accounts) as resources:
        contexts = make_contexts(settings, accounts, resources, LocalBucket(tmp_path))
        await redis.rpush("docv:breaker:@archive", "one-that-failed")
        for name in contexts.names:
            ctx = contexts.get(name)
            assert ctx is not None
            ctx.client.breaker.record_success()
        await contexts.flush()
        await contexts.flush()
    assert await redis.lrange("docv:breaker:@archive", 0, -1) == ["one-that-failed", *"+++++"]


@pytest.mark.parametrize(
    ("restricted", "explain", "queues"), [("withhold", "live", {Queue.LIVE}), ("archive", "all", set(Queue))]
)
async def test_restricted_documents_have_a_target_without_a_lock_when_the_settings_archive_them(
    redis: Redis, redis_url: str, s3: S3, restricted: str, explain: str, queues: set[Queue]
) -> None:
    bucket_name = f"locked-{uuid4()}"
    s3.client.create_bucket(Bucket=bucket_name, ObjectLockEnabledForBucket=True)
    settings = load_settings(
        archive_url=f"s3://{bucket_name}",
        s3_endpoint=s3.endpoint,
        redis_url=redis_url,
        api_key="a",
        lock_mode="COMPLIANCE",
        lock_days=1,
        restricted=restricted,
        explain=explain,
    )
    async with open_resources(settings, accounts := load_accounts(settings)) as resources:
        bucket = open_bucket(resources.archive, write_client=resources.write_client)
        contexts = make_contexts(settings, accounts, resources, bucket)
        ctx = contexts.get("default")
        assert ctx
        assert (ctx.explained_queues, ctx.restricted_target is not None) == (queues, restricted == "archive")
        await ctx.target.bucket.create("locked", b"1", ObjectAttributes("image/jpeg"))
        if ctx.restricted_target:
            await ctx.restricted_target.bucket.create("free", b"1", ObjectAttributes("image/jpeg"))
            assert ctx.restricted_target.uploads is ctx.target.uploads, "one budget limits all uploads"
            assert "ObjectLockMode" not in s3.client.head_object(Bucket=bucket_name, Key="free")
    assert s3.client.head_object(Bucket=bucket_name, Key="locked")["ObjectLockMode"] == "COMPLIANCE"
