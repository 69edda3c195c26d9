"""Cancel a run, or single evaluations."""

from collections.abc import Sequence

import click
import orjson
from redis.asyncio import Redis

from scripts.archive_access.open_bucket import open_archive_bucket, open_read_only_bucket
from scripts.console.exit_codes import NOT_ALL, OK
from scripts.console.operator_name import by_option, operator_name
from scripts.console.options import json_option
from scripts.ids.arguments import read_ids
from scripts.local.processes import run_with_redis
from scripts.overview.cancel_run import StoppedRun, record_cancellation, stop_run
from tasks.errors import IntegrityError, ManifestChanged
from tasks.ledger.cancellation import CancelCounts, Cancellation
from tasks.model.run_name import parse_run
from worker.clients.errors import ServiceUnavailable
from worker.config.settings import Settings, SettingsError, load_settings


@click.command()
@click.argument("sources", metavar="[FILE|ID]...", nargs=-1)
@click.option("--run", metavar="NAME", help="Cancel all waiting evaluations of this run.")
@by_option
@json_option()
def cancel(sources: Sequence[str], *, run: str | None, by: str | None, as_json: bool) -> int:
    """Cancel evaluations that are not in flight: those of a run, or individual ones for every run and producer.

    Evaluations that are queued, parked, on hold or not queued yet become cancelled. Evaluations in flight finish and
    are not tried again. With --run, an evaluation that another run or producer also requested is cancelled for this run
    only. If the command was interrupted, run it again.
    """
    if bool(sources) == (run is not None):
        raise click.UsageError("give either --run or evaluation IDs")
    settings, who = load_settings(), operator_name(by)
    if run is not None:
        return _cancel_run(settings, parse_run(run), who, as_json=as_json)
    ids = read_ids(sources, settings)
    counts = run_with_redis(settings, lambda redis: Cancellation(redis).cancel_evaluations(ids.eval_ids))
    _report(counts, as_json=as_json, not_waiting=len(ids.eval_ids) - counts.cancelled - counts.in_flight)
    return NOT_ALL if ids.bad else OK


def _cancel_run(settings: Settings, run: str, who: str, *, as_json: bool) -> int:
    async def work(redis: "Redis") -> StoppedRun | None:
        stopped = await stop_run(redis, run)
        if stopped:
            await _record(settings, stopped, who)
        return stopped

    stopped = run_with_redis(settings, work)
    if stopped is None:
        raise click.UsageError(f"there is no run {run}; `docv-archive status` lists them")
    position = stopped.position if stopped.fingerprint else None
    _report(stopped.counts, as_json=as_json, run=run, position=position)
    return OK


async def _record(settings: Settings, stopped: StoppedRun, who: str) -> None:
    is_fed = stopped.fingerprint is not None
    opened = open_archive_bucket(settings) if is_fed else open_read_only_bucket(settings, may_be_new=True)
    try:
        async with opened as bucket:
            is_recorded = await record_cancellation(bucket, stopped, who, settings.environment)
    except (IntegrityError, ManifestChanged) as error:
        raise ServiceUnavailable(
            f"run {stopped.run} is cancelled, but its list in the archive does not record this: {error}"
        ) from None
    except (ServiceUnavailable, SettingsError):
        if is_fed:  # any other run may have no list, and no archive here
            raise
        return
    if not is_recorded:
        click.echo(f"docv-archive: the archive has no list of run {stopped.run}, so it does not record this", err=True)


def _report(counts: CancelCounts, *, as_json: bool, **facts: object) -> None:
    if as_json:
        click.echo(orjson.dumps({"cancelled": counts.cancelled, "in_flight": counts.in_flight, **facts}))
        return
    click.echo(
        f"{counts.cancelled} cancelled" + (f"; {counts.in_flight} in flight will finish" if counts.in_flight else "")
    )
    if facts.get("not_waiting"):
        click.echo(f"not waiting: {facts['not_waiting']} of the given evaluations")
