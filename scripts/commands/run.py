"""Archive evaluations on this machine, now."""

from collections.abc import Sequence

from scripts.console.exit_codes import NOT_ALL, OK
from scripts.console.interrupts import interruptible
from scripts.console.summary import print_summary
from scripts.ids.arguments import read_ids
from scripts.local.machine import local_workers
from worker.config.accounts import load_accounts
from worker.config.settings import load_settings


def run(sources: Sequence[str], *, refresh: bool, even_if_erased: bool, account: str | None, as_json: bool) -> int:
    """Archive the evaluations that the sources name; return the exit code."""
    settings = load_settings()
    known = load_accounts(settings).select(account)
    known.settings.need_api_key()
    ids = read_ids(sources, settings)

    def archive_them() -> int:
        with local_workers(settings, known.name) as here:
            summary = here.archive(ids.eval_ids, refresh=refresh, even_if_erased=even_if_erased)
        print_summary(summary, as_json=as_json)
        return OK if summary.is_ok and not ids.bad else NOT_ALL

    return interruptible(archive_them)
