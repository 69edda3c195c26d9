"""Say what a backfill would mean before it is begun: how many requests, how long, how much to keep."""

import asyncio
import itertools
import statistics
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import click
import orjson
from rich.console import Console
from rich.table import Table

from scripts.archive_access.open_bucket import open_archive_bucket
from scripts.console.exit_codes import NOT_ALL, OK
from scripts.console.formatting import format_bytes, format_duration
from scripts.ids.gather import Gathered
from scripts.overview.estimate import Estimate, estimate_requests
from scripts.overview.rate_status import read_rate
from tasks.model.evaluation import Evaluation
from tasks.model.outcome import ManifestOutcome
from tasks.storage.bucket import Bucket
from tasks.storage.manifest import Manifest, read_manifest
from worker.clients.redis import check_redis, open_redis
from worker.config.accounts_file import AccountSettings
from worker.config.settings import Settings

_SAMPLE = 1_000
_AT_ONCE = 32
# What RiskOS's documentation shows of a bundle: front, back, selfie, in some 0.75 MB.
_DOCUMENTS, _BYTES = 3.0, 750_000.0


@dataclass(frozen=True, slots=True)
class BackfillPlan:
    """What a backfill would mean.

    Attributes:
        ids: evaluations of the run, each once.
        bad: lines that name none.
        repeated: lines that name one again.
        looked_up: of how many we looked whether they are in the archive.
        archived: how many of those are.
        documents: documents of an evaluation, on average.
        size: bytes of them.
        known: whether these averages come from the archive, and not from RiskOS's documentation.
        estimate: of the requests.
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
        """Evaluations that are not in the archive; told from those that were looked up."""
        return round(self.ids * (1 - self.archived / self.looked_up))

    @property
    def puts(self) -> int:
        """PUT requests: the documents and the manifest of each."""
        return round(self.estimate.requests * (self.documents + 1))


async def make_plan(
    gathered: Gathered,
    here: Settings,
    account: AccountSettings,
    *,
    refresh: Collection[ManifestOutcome],
    as_json: bool,
) -> int:
    """Print what a backfill would mean; queue nothing; return the exit code.

    Args:
        gathered: the IDs.
        here: settings with a Redis.
        account: whom RiskOS would be asked with.
        refresh: what a manifest says for which it would be asked nevertheless.
        as_json: for a program.
    """
    settings = account.settings
    async with open_redis(here.need_redis_url()) as redis:
        await check_redis(redis)
        rate = await read_rate(redis, account)
    # Spread over all of them.
    sample = tuple(itertools.islice(gathered.ids, 0, None, max(1, -(-len(gathered.ids) // _SAMPLE))))
    async with open_archive_bucket(settings) as bucket:
        manifests = await _check_archived(bucket, settings, sample)
    found = [manifest for manifest in manifests if manifest]
    full = [manifest.documents for manifest in found if manifest.documents]
    final = [each for each in found if each.manifest_outcome not in refresh and not each.is_without_docv]
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
        estimate=estimate_requests(round(len(gathered.ids) * asked / len(sample)), settings, rate=rate.effective),
    )
    if as_json:
        click.echo(orjson.dumps(_as_json(made)))
    else:
        Console().print(_table(made))
        click.echo("nothing was queued; the same command without --dry-run begins", err=True)
    return NOT_ALL if gathered.bad else OK


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
        "puts": made.puts,
        "bytes": round(made.estimate.requests * made.size),
    }


def _table(made: BackfillPlan) -> Table:
    whole = made.looked_up == made.ids
    source = "as the archive's own are" if made.known else "as RiskOS's documentation shows them"
    quota = "" if made.estimate.per_day is None else f", {made.estimate.per_day:,.0f} requests a day"
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_row("evaluations", f"{made.ids:,}", f"{made.bad:,} bad lines, {made.repeated:,} repeated")
    table.add_row(
        "not archived yet", f"{made.new_ids:,}", "looked up each" if whole else f"told from {made.looked_up:,} of them"
    )
    table.add_row("requests to RiskOS", f"{made.estimate.requests:,}", "")
    table.add_row("time", format_duration(made.estimate.seconds), f"at {made.estimate.rate:.3g} a second{quota}")
    table.add_row("PUT requests", f"{made.puts:,}", f"{made.documents:.1f} documents and a manifest each, {source}")
    table.add_row("to keep", format_bytes(made.estimate.requests * made.size), f"{format_bytes(made.size)} each")
    return table
