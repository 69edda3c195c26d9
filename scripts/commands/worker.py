"""Serve the queues: a Celery worker with our settings."""

import asyncio
from collections.abc import Sequence

from scripts.local.parent import end_with_parent
from worker.app import app
from worker.config.accounts import Accounts, load_accounts
from worker.config.settings import Settings, load_settings
from worker.resources import open_resources


def serve_queues(queues: Sequence[str], *, with_parent: bool) -> None:
    """Run a Celery worker until it is told to stop.

    Raises:
        SettingsError: something is missing or impossible.
        ServiceUnavailable: Redis or the bucket does not answer.
    """
    settings = load_settings()
    accounts = load_accounts(settings)
    for account in accounts:
        account.settings.need_api_key()
    asyncio.run(_check_services(settings, accounts))
    if with_parent:
        end_with_parent()
    # Not through Celery's command, which forgets the exit code on its way.
    worker = app.Worker(
        queues=list(queues),
        loglevel=settings.log_level,
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=not settings.celery_events,
    )
    worker.start()
    raise SystemExit(worker.exitcode)


async def _check_services(settings: Settings, accounts: Accounts) -> None:
    async with open_resources(settings, accounts):
        pass
