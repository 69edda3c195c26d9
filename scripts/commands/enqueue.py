"""Put evaluations on a queue for the workers."""

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any

import click
import orjson

from scripts.console.exit_codes import NOT_ALL, OK
from scripts.console.options import (
    account_option,
    even_if_erased_option,
    json_option,
    refresh_option,
    refresh_outcome_option,
)
from scripts.ids.arguments import ParsedIds, name_sources, read_ids
from scripts.overview.run_lists import keep_run_list
from tasks.ledger.ledger import Ledger
from tasks.model.job import EnqueueOptions, Queue, Trigger
from tasks.model.run_name import parse_run
from tasks.queueing.publisher import Publisher
from tasks.queueing.publisher import enqueue as accept_and_publish
from tasks.telemetry import tracing
from worker.app import make_publishing_app
from worker.clients.redis import check_redis, open_redis
from worker.config.accounts import load_accounts
from worker.config.accounts_file import AccountSettings
from worker.config.settings import Settings, load_settings
from worker.tracing import open_tracer


@click.command()
@click.argument("sources", metavar="FILE|ID...", nargs=-1, required=True)
@click.option(
    "--queue",
    type=click.Choice([queue.value for queue in Queue]),
    default="live",
    show_default=True,
    help="Queue to put them on.",
)
@click.option("--run", help="Run in which to count them; see `status NAME` and `report NAME`.")
@refresh_option
@refresh_outcome_option
@click.option(
    "--settle",
    is_flag=True,
    help="Wait DOCV_SETTLE_SECONDS before the first request, for evaluations that have just completed.",
)
@even_if_erased_option
@account_option()
@json_option()
def enqueue(
    sources: Sequence[str],
    *,
    queue: str,
    run: str | None,
    settle: bool,
    account: str | None,
    as_json: bool,
    **wanted: Any,
) -> int:
    """Put evaluations on a queue; workers archive them.

    FILE may be text, CSV, JSON Lines or Parquet, optionally gzipped. Use - for standard input.
    """
    settings = load_settings()
    known = load_accounts(settings).select(account)
    settings.need_redis_url()
    tracing.set_tracer(open_tracer(settings))
    trigger = Trigger("enqueue", run=None if run is None else parse_run(run))
    ids = read_ids(sources, settings)
    delay = settings.settle_seconds if settle else 0.0
    order = EnqueueOptions(Queue(queue), known.name, trigger, delay=delay, **wanted)
    published = asyncio.run(_enqueue(settings, known, ids, order, name_sources(sources)))
    if as_json:
        facts = {"accepted": len(ids.eval_ids), "published": published, "refused": len(ids.bad)}
        click.echo(orjson.dumps(facts | {"queue": queue, "run": run}))
    else:
        click.echo(_sentence(len(ids.eval_ids), published, queue, delay))
    return NOT_ALL if ids.bad else OK


async def _enqueue(
    settings: Settings, account: AccountSettings, ids: ParsedIds, order: EnqueueOptions, source: str
) -> int:
    async with open_redis(settings.need_redis_url()) as redis:
        await check_redis(redis)
        with contextlib.closing(Publisher(make_publishing_app(settings))) as publisher:
            ledger = Ledger(redis, replicas=settings.redis_replicas)
            await keep_run_list(ledger, account, ids.eval_ids, order, source)
            return await accept_and_publish(ledger, publisher, ids.eval_ids, order)


def _sentence(accepted: int, published: int, queue: str, delay: float) -> str:
    if delay:
        return f"{accepted:,} accepted; their first request waits {delay:g} s"
    count = accepted - published
    merged = f", {count:,} of them {'was' if count == 1 else 'were'} under way already" if count else ""
    return f"{accepted:,} accepted on the queue {queue}{merged}"
