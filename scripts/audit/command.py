"""The command `audit`: look up each ID in the archive, and print its outcome or that it is missing."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import click

from scripts.archive_access.evaluation_rows import MISSING, EvaluationRow, read_rows
from scripts.archive_access.open_bucket import open_read_only_bucket
from scripts.audit.inventory_holdings import open_holdings
from scripts.audit.inventory_source import open_inventory
from scripts.console.csv_output import RecordWriter, choose_writer
from scripts.console.exit_codes import NOT_ALL, OK
from scripts.console.formatting import format_count
from scripts.console.interrupts import interruptible
from scripts.console.options import account_option, column_option, excel_option, json_option
from scripts.console.read_only import ProgressLine, run_read_only
from scripts.ids.id_list import IdList, read_id_list
from scripts.ids.scratch import leave_no_folders
from tasks.model.outcome import Outcome, SourceStatus
from tasks.telemetry import tracing
from worker.config.accounts import load_accounts
from worker.config.accounts_file import AccountSettings
from worker.config.settings import Settings, load_settings
from worker.tracing import open_tracer

if TYPE_CHECKING:
    from scripts.audit.enqueue_missing import MissingQueue

Chunks = AsyncGenerator[Sequence[EvaluationRow], None]
_AT_ONCE = 8_192


@dataclass(slots=True)
class AuditTotals:
    """The totals of all rows.

    Attributes:
        outcomes: number of evaluations by outcome.
        reasons: number of evaluations without documents, by outcome and reason.
        restricted: evaluations with documents that must not be kept.
        damaged: damaged manifests; their evaluations count as missing, too.
        documents: number of documents.
        disposed: documents that were disposed of.
        only_here: evaluations with documents that only the archive has.
        unknown: evaluations with documents for which it is not known whether RiskOS has them.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    reasons: Counter[tuple[str, str]] = field(default_factory=Counter)
    restricted: int = 0
    damaged: int = 0
    documents: int = 0
    disposed: int = 0
    only_here: int = 0
    unknown: int = 0

    def add(self, some: Sequence[EvaluationRow]) -> None:
        """Add some rows to the totals."""
        for row in some:
            self.outcomes[row.outcome] += 1
            if row.reason:
                self.reasons[row.outcome, row.reason] += 1
            self.restricted += row.restricted is not None
            self.damaged += row.is_damaged
            self.documents += row.documents
            self.disposed += row.disposed or 0
            self.only_here += row.is_only_held_here
            self.unknown += bool(row.documents) and row.at_source is SourceStatus.UNKNOWN

    def sentence(self) -> str:
        """Return the totals in a line."""
        counts = [f"{count:,} {outcome}" for outcome, count in sorted(self.outcomes.items())]
        damaged = f" ({self.damaged:,} with a damaged manifest)" if self.damaged else ""
        explained = "".join(self._explain(outcome) for outcome in (Outcome.NO_DOCUMENTS, Outcome.WITHHELD))
        disposed = f", {self.disposed:,} disposed of" if self.disposed else ""
        return (
            f"{format_count(self.outcomes.total(), 'evaluation')}: {', '.join(counts)}{damaged}; "
            f"{format_count(self.documents, 'document')}{disposed}{explained}"
        )

    def _explain(self, outcome: Outcome) -> str:
        reasons = [f"{count:,} {reason}" for (of, reason), count in sorted(self.reasons.items()) if of == outcome]
        return f" ({outcome.replace('_', ' ')}: {', '.join(reasons)})" if reasons else ""

    def source_sentence(self) -> str:
        """Return in a line how many evaluations have documents only in the archive, as far as that is known."""
        return f"{self.only_here:,} gone or partly gone at RiskOS; for {self.unknown:,} it is not known what RiskOS has"


@dataclass(frozen=True, slots=True)
class RowSelection:
    """Which rows are printed.

    Attributes:
        gone_at_source: only evaluations whose documents RiskOS has lost, all or some of them.
        restricted: only evaluations with documents that must not be kept.
    """

    gone_at_source: bool
    restricted: bool

    def has(self, row: EvaluationRow) -> bool:
        """Return whether a row is printed."""
        is_gone = not self.gone_at_source or row.is_only_held_here
        return is_gone and (not self.restricted or row.restricted is not None)


@click.command()
@click.argument("source", metavar="FILE")
@column_option
@click.option(
    "--inventory", metavar="FILE", help="Read this S3 Inventory report instead of each evaluation's manifest."
)
@click.option(
    "--gone-at-source",
    is_flag=True,
    help="Print only evaluations whose documents RiskOS no longer has, or only in part.",
)
@click.option("--restricted", is_flag=True, help="Print only evaluations with documents of military IDs and minors.")
@click.option("--enqueue-missing", is_flag=True, help="Put missing evaluations on the backfill queue; needs Redis.")
@account_option()
@excel_option
@json_option("Print one JSON object per line instead of CSV.")
def audit(
    source: str,
    column: str | None,
    inventory: str | None,
    account: str | None,
    *,
    enqueue_missing: bool,
    excel: bool,
    as_json: bool,
    **chosen: bool,
) -> int:
    """Print the archived outcome of each ID, or `missing`.

    FILE may be text, CSV, JSON Lines or Parquet, optionally gzipped. Use - for standard input, or s3://bucket/key for
    an object in S3. Needs neither Redis nor RiskOS. Exit code 1 means that something is missing or damaged, or that a
    line has no evaluation ID.

    `documents` counts the documents in the archive, and `disposed` those that the retention schedule disposed of. The
    outcome is `disposed` if none is left. `at_source` says whether RiskOS still had them when it was last
    asked: present, partly_gone, gone, none or unknown. --gone-at-source prints only evaluations that are gone or
    partly_gone.

    `restricted` is military or minor if the archive holds documents that must not be kept. They were archived before
    the evidence arrived, or with DOCV_RESTRICTED=archive. --restricted prints only these; `erase` removes them.

    --inventory takes the manifest.json of a report (CSV or Parquet) with its data files in the same place, or a single
    data file, local or in S3. Manifests of evaluations are not read. The outcome is `present` or `missing` at the
    time of the report, documents and bytes are counted from the keys, and `at_source` and `disposed` are empty.

    --enqueue-missing puts `missing` evaluations on the backfill queue. It leaves out evaluations that are erased,
    cancelled, in the ledger, in the list of an unfinished run or a dead letter, or that have a damaged manifest.
    """
    if inventory and any(chosen.values()):
        raise click.UsageError("an inventory has no manifests: leave out --inventory, --gone-at-source or --restricted")
    known = load_accounts(load_settings()).select(account)
    settings = known.settings
    tracing.set_tracer(open_tracer(settings))
    write = choose_writer(EvaluationRow.names(), as_json=as_json, excel=excel)
    with leave_no_folders(settings), read_id_list(source, column, settings) as listed:
        rows = _audit_inventory(inventory, listed, settings) if inventory else _audit_archive(listed, settings)
        selection = RowSelection(**chosen)
        if enqueue_missing:
            return interruptible(lambda: asyncio.run(_enqueue(rows, listed, write, selection, known)))
        return run_read_only(_audit(rows, listed, write, selection))


async def _enqueue(
    rows: Chunks, listed: IdList, write: RecordWriter, selection: RowSelection, account: AccountSettings
) -> int:
    # Imported lazily: it loads Celery and Redis, which a plain audit does not need.
    from scripts.audit.enqueue_missing import open_missing_queue  # noqa: PLC0415

    async with open_missing_queue(account.settings, account.name) as missing:
        code = await _audit(rows, listed, write, selection, missing)
    click.echo(missing.counts.sentence(), err=True)
    return code


async def _audit(
    rows: Chunks, listed: IdList, write: RecordWriter, selection: RowSelection, missing: "MissingQueue | None" = None
) -> int:
    found = AuditTotals()
    write(())
    with ProgressLine("audit", len(listed.ids)) as progress:
        # Closed explicitly even if the reader of standard output goes away, since the rows hold an open bucket.
        async with aclosing(rows):
            async for some in rows:
                found.add(some)
                if missing:
                    await missing.add(some)
                if shown := [row.as_json() for row in some if selection.has(row)]:
                    write(shown)
                progress.update(found.outcomes.total(), f"{found.outcomes[MISSING]:,} missing")
    click.echo(found.sentence(), err=True)
    if selection.gone_at_source:
        click.echo(found.source_sentence(), err=True)
    if found.restricted:
        click.echo(f"{found.restricted:,} with documents of military IDs or minors; see --restricted", err=True)
    return NOT_ALL if found.outcomes[MISSING] or listed.bad else OK


async def _audit_archive(listed: IdList, settings: Settings) -> Chunks:
    async with open_read_only_bucket(settings) as bucket:
        for chunk in listed.ids.chunks(_AT_ONCE):
            async for some in read_rows(bucket, settings.environment, chunk):
                yield some


async def _audit_inventory(inventory: str, listed: IdList, settings: Settings) -> Chunks:
    with open_inventory(inventory, settings) as objects, open_holdings(objects, settings) as holdings:
        for chunk in listed.ids.chunks(_AT_ONCE):
            yield holdings.rows(chunk)
