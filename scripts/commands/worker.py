"""Serve the queues with a Celery worker."""

import asyncio

import click

from scripts.console.exit_codes import OK
from scripts.console.options import with_parent_option
from scripts.local.parent import end_with_parent
from tasks.model.job import Queue
from worker.app import app
from worker.config.accounts import Accounts, load_accounts
from worker.config.settings import Settings, load_settings
from worker.logs import configure_logs
from worker.resources import open_resources


@click.command()
@click.option("--queues", default="live,backfill", show_default=True, help="Queues to serve.")
@with_parent_option
def worker(queues: str, *, with_parent: bool) -> int:
    """Archive evaluations from the queues until stopped; any number of workers can share one Redis."""
    names = queues.split(",")
    if not set(names) <= set(Queue):
        raise click.BadParameter(f"the queues are {' and '.join(Queue)}", param_hint="--queues")
    settings = load_settings()
    accounts = load_accounts(settings)
    for account in accounts:
        account.settings.need_api_key()
    configure_logs(settings.log_level, accounts.secrets())
    asyncio.run(_check_services(settings, accounts))
    if with_parent:
        end_with_parent()
    # Not started by Celery's command, which loses the exit code.
    celery_worker = app.Worker(
        queues=names,
        loglevel=settings.log_level,
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=not settings.celery_events,
    )
    celery_worker.start()
    return int(celery_worker.exitcode or OK)


async def _check_services(settings: Settings, accounts: Accounts) -> None:
    async with open_resources(settings, accounts):
        pass
