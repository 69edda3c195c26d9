"""Store the list of a run that is not fed from a list, so that `report` can show it later."""

from collections.abc import Sequence

import click

from scripts.archive_access.open_bucket import open_archive_bucket
from scripts.console.operator_name import actor_name
from tasks.errors import ArchiveError
from tasks.ledger.ledger import Ledger
from tasks.model.job import EnqueueOptions
from tasks.storage.growing_run_list import extend_run_list
from worker.clients.errors import ServiceUnavailable
from worker.config.accounts_file import AccountSettings
from worker.config.settings import SettingsError


async def keep_run_list(
    ledger: Ledger, account: AccountSettings, eval_ids: Sequence[str], order: EnqueueOptions, source: str
) -> None:
    """Add evaluations to the list of their run in the archive; if that fails, report it on standard error.

    Args:
        order: options of the order; its trigger names the run.
        source: name of the file, or another source of the IDs.
    """
    run = order.trigger.run
    if run is None:
        return
    if await ledger.runs.get_fingerprint(run):
        click.echo(f"run {run} is a backfill: `report {run}` shows the evaluations of its own list only", err=True)
        return
    try:
        async with open_archive_bucket(account.settings) as bucket:
            await extend_run_list(
                bucket,
                eval_ids,
                run=run,
                environment=account.settings.environment,
                order=order,
                source=source,
                by=actor_name(),
            )
    except (ArchiveError, ServiceUnavailable, SettingsError) as error:
        click.echo(f"run {run} has no list in the archive, so `report {run}` cannot show it: {error}", err=True)
