"""Open the records of evaluations in Redis for commands that may run without Redis."""

import contextlib
from collections.abc import AsyncIterator

from scripts.erase.traces import RedisRecords
from scripts.local.processes import find_local_redis
from tasks.ledger.ledger import Ledger
from worker.clients.redis import check_redis, open_redis
from worker.config.accounts import load_accounts
from worker.config.settings import Settings, SettingsError


@contextlib.asynccontextmanager
async def open_redis_records(settings: Settings) -> AsyncIterator[RedisRecords]:
    """Open the records in Redis, including the embedded one of a folder.

    Raises:
        ServiceUnavailable: Redis refuses or fails.
    """
    async with contextlib.AsyncExitStack() as stack:
        # Without a Redis that was started here before, no worker has a record of an evaluation.
        with contextlib.suppress(SettingsError):
            settings, _ = stack.enter_context(find_local_redis(settings))
        ledger = None
        if settings.redis_url:
            redis = await stack.enter_async_context(open_redis(settings.need_redis_url()))
            await check_redis(redis)
            ledger = Ledger(redis)
        environments = {each.name: each.settings.environment for each in load_accounts(settings)}
        yield RedisRecords(ledger, environments=environments)
