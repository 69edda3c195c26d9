"""Plan a backfill before it begins: requests, time, and bytes to store."""

import asyncio
import itertools
import statistics
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import click
import orjson
from rich.console import Console
from rich.table import Table

from scripts.archive_access.open_bucket import open_read_only_bucket
from scripts.console.exit_codes import NOT_ALL, OK
from scripts.console.formatting import format_bytes, format_count, format_duration, format_number
from scripts.ids.gather import Gathered
from scripts.overview.estimate import Estimate, estimate_requests
from scripts.overview.measured_speed import read_speed
from scripts.overview.rate_status import read_rate
from tasks.ledger.ledger import Ledger
from tasks.model.evaluation import Evaluation
from tasks.model.job import Queue
from tasks.model.outcome import ManifestOutcome
from tasks.storage.bucket import Bucket
from tasks.storage.manifest import Manifest, read_manifest
from worker.clients.redis import check_redis, open_redis
from worker.config.accounts_file import AccountSettings
from worker.config.settings import Settings

_SAMPLE = 1_000
_AT_ONCE = 32
# The bundle in RiskOS's documentation: front, back and selfie, about 0.75 MB.
_DOCUMENTS, _BYTES = 3.0, 750_000.0


@dataclass(frozen=True, slots=True)
class BackfillPlan:
    """The plan of a backfill.

    Attributes:
        ids: evaluations of the run, without duplicates.
        bad: lines without an evaluation ID.
        repeated: lines with an evaluation ID of an earlier line.
        looked_up: the number of evaluations that were looked up in the archive.
        archived: the number of these that are in the archive.
        documents: mean number of documents of an evaluation.
        size: mean bytes of the documents of an evaluation.
        known: whether these means come from the archive, and not from RiskOS's documentation.
        estimate: the requests and the time.
    """

    ids: int
    bad: int
    repeated: int
    looked_up: int
    archived: int
    documents: float
    size: float
    known: bool
    estimate: Estimate

    @property
    def new_ids(self) -> int:
        """The number of evaluations that are not in the archive, estimated from those that were looked up."""
        return round(self.ids * (1 - self.archived / self.looked_up))

    @property
    def puts(self) -> int:
        """The number of PUT requests: the documents and the manifest of each evaluation."""
        return round(self.estimate.requests * (self.documents + 1))


async def make_plan(
    gathered: Gathered,
    here: Settings | None,
    account: AccountSettings,
    *,
    refresh: Collection[ManifestOutcome],
    as_json: bool,
) -> int:
    """Print the plan of a backfill and queue nothing; return the exit code.

    Args:
        gathered: the IDs.
        here: settings with a Redis; None if none was used here before.
        account: account with which RiskOS would be asked.
        refresh: outcomes of manifests for which RiskOS would be asked again.
        as_json: print JSON instead of a table.
    """
    settings = account.settings
    rate, measured = await _read_speeds(here, account)
    # Evenly spread over the list.
    sample = tuple(itertools.islice(gathered.ids, 0, None, max(1, -(-len(gathered.ids) // _SAMPLE))))
    async with open_read_only_bucket(settings, may_be_new=True) as bucket:
        manifests = await _check_archived(bucket, settings, sample)
    found = [manifest for manifest in manifests if manifest]
    full = [manifest.documents for manifest in found if manifest.documents]
    final = [each for each in found if each.manifest_outcome not in refresh and not each.is_provisional]
    asked = len(sample) - len(final)
    made = BackfillPlan(
        ids=len(gathered.ids),
        bad=gathered.bad,
        repeated=gathered.repeated,
        looked_up=len(sample),
        archived=len(found),
        documents=statistics.fmean(map(len, full)) if full else _DOCUMENTS,
        size=statistics.fmean(sum(each.size for each in documents) for documents in full) if full else _BYTES,
        known=bool(full),
        estimate=estimate_requests(
            round(len(gathered.ids) * asked / len(sample)), settings, rate=rate, measured=measured
        ),
    )
    if as_json:
        click.echo(orjson.dumps(_as_json(made)))
    else:
        Console().print(_table(made))
        click.echo("nothing was queued; run the command without --dry-run to start", err=True)
    return NOT_ALL if gathered.bad else OK


async def _read_speeds(here: Settings | None, account: AccountSettings) -> tuple[float, float | None]:
    """Return requests per second that the account may send, and evaluations per second that its workers reached."""
    if here is None:
        return account.settings.rate, None
    async with open_redis(here.need_redis_url()) as redis:
        await check_redis(redis)
        rate, measured = await read_rate(redis, account), await read_speed(redis, account.name)
        is_busy = (await Ledger(redis).get_stats()).queued[Queue.BACKFILL] > 0
        return rate.effective, measured or (rate.observed if is_busy and rate.observed else None)


async def _check_archived(bucket: Bucket, settings: Settings, eval_ids: Sequence[str]) -> list[Manifest | None]:
    at_once = asyncio.Semaphore(_AT_ONCE)

    async def one(eval_id: str) -> Manifest | None:
        async with at_once:
            committed = await read_manifest(bucket, Evaluation(eval_id, settings.environment))
        return committed.manifest if committed else None

    return await asyncio.gather(*map(one, eval_ids))


def _as_json(made: BackfillPlan) -> dict[str, object]:
    return {
        "ids": made.ids,
        "bad": made.bad,
        "repeated": made.repeated,
        "looked_up": made.looked_up,
        "archived_of_those": made.archived,
        "new": made.new_ids,
        "requests": made.estimate.requests,
        "rate": round(made.estimate.rate, 3),
        "requests_a_day": made.estimate.per_day,
        "seconds": round(made.estimate.seconds, 1),
        "is_measured": made.estimate.is_measured,
        "puts": made.puts,
        "bytes": round(made.estimate.requests * made.size),
    }


def _table(made: BackfillPlan) -> Table:
    whole = made.looked_up == made.ids
    source = "sizes from the archive" if made.known else "sizes from RiskOS's documentation"
    quota = "" if made.estimate.per_day is None else f", {made.estimate.per_day:,.0f} requests a day"
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_row(
        "evaluations", f"{made.ids:,}", f"{format_count(made.bad, 'invalid line')}, {made.repeated:,} repeated"
    )
    table.add_row(
        "not archived yet",
        f"{made.new_ids:,}",
        "each looked up" if whole else f"estimated from {made.looked_up:,} of them",
    )
    table.add_row("requests to RiskOS", f"{made.estimate.requests:,}", "")
    # Only a run measures how fast the workers are; until then the rate is all that is known.
    least, why = ("", "measured lately") if made.estimate.is_measured else ("at least ", "if the workers keep up")
    rate = f"at {format_number(made.estimate.rate)} per second, {why}{quota}"
    table.add_row("time", least + format_duration(made.estimate.seconds), rate)
    table.add_row("PUT requests", f"{made.puts:,}", f"{made.documents:.1f} documents and a manifest each, {source}")
    table.add_row("storage", format_bytes(made.estimate.requests * made.size), f"{format_bytes(made.size)} each")
    return table
