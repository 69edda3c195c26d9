"""Take back what was ordered by mistake: a run, or single evaluations."""

from collections.abc import Sequence

import click
import orjson
from redis.asyncio import Redis

from scripts.archive_access.open_bucket import open_archive_bucket
from scripts.console.exit_codes import NOT_ALL, OK
from scripts.console.operator_name import by_option, operator_name
from scripts.console.options import json_option
from scripts.ids.arguments import read_ids
from scripts.local.processes import run_with_redis
from scripts.overview.cancel_run import StoppedRun, record_cancellation, stop_run
from tasks.errors import IntegrityError, ManifestChanged
from tasks.ledger.cancellation import CancelCounts, Cancellation
from tasks.queueing.message import parse_run
from worker.clients.errors import ServiceUnavailable
from worker.config.settings import Settings, load_settings


@click.command()
@click.argument("sources", metavar="[FILE|ID]...", nargs=-1)
@click.option("--run", metavar="NAME", help="Everything that this run waits for.")
@by_option
@json_option()
def cancel(sources: Sequence[str], *, run: str | None, by: str | None, as_json: bool) -> int:
    """Take back what is not in flight: a run, or evaluations for all that wait for them.

    Whatever is queued, parked, on hold or not fed yet counts as cancelled. What is in flight ends, and is not tried
    again. With --run an evaluation that others want, too, is cancelled for this run only. Given again, the command goes
    on where it was cut off.
    """
    if bool(sources) == (run is not None):
        raise click.UsageError("name either a run with --run, or evaluations")
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
        if stopped and stopped.fingerprint:
            await _record(settings, stopped, who)
        return stopped

    stopped = run_with_redis(settings, work)
    if stopped is None:
        raise click.UsageError(f"there is no run {run}; `docv-archive status` lists them")
    position = stopped.position if stopped.fingerprint else None
    _report(stopped.counts, as_json=as_json, run=run, position=position)
    return OK


async def _record(settings: Settings, stopped: StoppedRun, who: str) -> None:
    try:
        async with open_archive_bucket(settings) as bucket:
            is_recorded = await record_cancellation(bucket, stopped, who, settings.environment)
    except (IntegrityError, ManifestChanged) as error:
        raise ServiceUnavailable(f"run {stopped.run} is cancelled, and its list does not say so: {error}") from None
    if not is_recorded:
        click.echo(f"docv-archive: the archive has no list of run {stopped.run} that could say so", err=True)


def _report(counts: CancelCounts, *, as_json: bool, **facts: object) -> None:
    if as_json:
        click.echo(orjson.dumps({"cancelled": counts.cancelled, "in_flight": counts.in_flight, **facts}))
        return
    click.echo(f"{counts.cancelled} cancelled" + (f"; {counts.in_flight} in flight end" if counts.in_flight else ""))
    if facts.get("not_waiting"):
        click.echo(f"{facts['not_waiting']} of the named were not waiting")
