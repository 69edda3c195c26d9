"""Archive evaluations on this machine, with a worker of its own."""

from typing import Any

import click

from scripts.console.exit_codes import NOT_ALL, OK
from scripts.console.interrupts import interruptible
from scripts.console.options import (
    accept_refusals_option,
    account_option,
    even_if_erased_option,
    json_option,
    refresh_option,
    refresh_outcome_option,
)


@click.command()
@click.argument("sources", metavar="FILE|ID...", nargs=-1, required=True)
@refresh_option
@refresh_outcome_option
@even_if_erased_option
@accept_refusals_option
@account_option()
@json_option()
def run(sources: tuple[str, ...], *, account: str | None, as_json: bool, **wanted: Any) -> int:
    """Archive evaluations now, on this machine.

    FILE may be text, CSV, JSON Lines or Parquet, optionally gzipped. Use - for standard input. The command starts its
    own worker, and its own Redis unless DOCV_REDIS_URL is set. You can stop it at any time. Run the same command again
    to continue.
    """
    # Imported lazily: otherwise the message about a mistyped option takes a second.
    from scripts.console.summary import print_summary
    from scripts.ids.arguments import name_sources, read_ids
    from scripts.local.machine import local_workers
    from worker.config.accounts import load_accounts
    from worker.config.settings import load_settings

    settings = load_settings()
    known = load_accounts(settings).select(account)
    known.settings.need_api_key()
    ids = read_ids(sources, settings)

    def archive_them() -> int:
        with local_workers(settings, known.name) as here:
            here.print_log_path()
            summary = here.archive(ids.eval_ids, source=name_sources(sources), **wanted)
        print_summary(summary, as_json=as_json)
        return OK if summary.is_ok and not ids.bad else NOT_ALL

    return interruptible(archive_them)
