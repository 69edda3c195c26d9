"""Ask the archive, not the logs: for each ID its outcome, or that it is missing."""

from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

import click

from scripts.archive_access.evaluation_rows import (
    MISSING,
    ONLY_HELD_HERE,
    EvaluationRow,
    read_rows,
    write_csv,
    write_json_lines,
)
from scripts.archive_access.open_bucket import open_read_only_bucket
from scripts.audit.inventory_holdings import inventory_rows
from scripts.audit.inventory_source import open_inventory
from scripts.console.exit_codes import NOT_ALL, OK
from scripts.console.options import account_option, column_option, json_option
from scripts.console.read_only import ProgressLine, run_read_only
from scripts.ids.id_list import IdList, read_id_list
from tasks.model.outcome import SourceStatus
from worker.config.accounts import load_account_settings
from worker.config.settings import Settings

Chunks = AsyncIterator[Sequence[EvaluationRow]]
Writer = Callable[[Sequence[EvaluationRow]], None]
_AT_ONCE = 8_192


@dataclass(slots=True)
class AuditTotals:
    """What all rows say together.

    Attributes:
        outcomes: how many of each.
        reasons: how many without documents for each reason.
        damaged: manifests that say nothing; they count as missing, too.
        documents: how many.
        only_here: evaluations of which only the archive has documents.
        unknown: evaluations with documents of which it is not known whether RiskOS has them.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    damaged: int = 0
    documents: int = 0
    only_here: int = 0
    unknown: int = 0

    def add(self, some: Sequence[EvaluationRow]) -> None:
        """Count some rows."""
        for row in some:
            self.outcomes[row.outcome] += 1
            if row.reason:
                self.reasons[row.reason] += 1
            self.damaged += row.is_damaged
            self.documents += row.documents
            self.only_here += row.at_source in ONLY_HELD_HERE
            self.unknown += bool(row.documents) and row.at_source is SourceStatus.UNKNOWN

    def sentence(self) -> str:
        """Return the counts in a line."""
        counts = [f"{count:,} {outcome}" for outcome, count in sorted(self.outcomes.items())]
        damaged = f" ({self.damaged:,} of those have a damaged manifest)" if self.damaged else ""
        reasons = [f"{count:,} {reason}" for reason, count in sorted(self.reasons.items())]
        explained = f" (no documents: {', '.join(reasons)})" if reasons else ""
        return (
            f"{self.outcomes.total():,} evaluations: {', '.join(counts)}{damaged}; "
            f"{self.documents:,} documents{explained}"
        )

    def source_sentence(self) -> str:
        """Return in a line how many evaluations only the archive has documents of, as far as that is known."""
        return f"{self.only_here:,} gone or partly gone at RiskOS; for {self.unknown:,} it is not known what RiskOS has"


@click.command()
@click.argument("source", metavar="FILE")
@column_option
@click.option("--inventory", metavar="FILE", help="Look into this S3 Inventory report instead of asking for each ID.")
@click.option(
    "--gone-at-source", is_flag=True, help="Print only evaluations that RiskOS does not have (all of) any more."
)
@account_option()
@json_option("Print one JSON object a line instead of CSV.")
def audit(
    source: str,
    column: str | None,
    inventory: str | None,
    account: str | None,
    *,
    gone_at_source: bool,
    as_json: bool,
) -> int:
    """Ask the archive, not the logs: for each ID its outcome, or `missing`.

    FILE is text, CSV, JSON lines or Parquet, also gzipped; - is standard input; s3://bucket/key works, too. Neither
    Redis nor RiskOS is needed. Exit code 1 says that something is missing or damaged, or that a line names no
    evaluation.

    `documents` are those that the archive holds. `at_source` is what RiskOS had of them when it was last asked:
    present, partly_gone, gone, none or unknown. --gone-at-source prints only what is gone or partly gone there.

    --inventory takes the manifest.json of a report (CSV or Parquet; its data files in the same place), or one data
    file, here or in S3. Then no manifest is read: the outcome is `present` or `missing`, as of the report, and
    documents and bytes are counted from the keys, and `at_source` is empty.
    """
    if inventory and gone_at_source:
        raise click.UsageError("an inventory does not say what RiskOS has: leave out --inventory or --gone-at-source")
    settings = load_account_settings(account)
    write = write_json_lines if as_json else write_csv
    with read_id_list(source, column, settings) as listed:
        rows = _audit_inventory(inventory, listed, settings) if inventory else _audit_archive(listed, settings)
        return run_read_only(_audit(rows, listed, write, gone_at_source=gone_at_source))


async def _audit(rows: Chunks, listed: IdList, write: Writer, *, gone_at_source: bool) -> int:
    found = AuditTotals()
    write(())
    with ProgressLine("audit", len(listed.ids)) as distance:
        async for some in rows:
            found.add(some)
            shown = [row for row in some if row.at_source in ONLY_HELD_HERE] if gone_at_source else some
            if shown:
                write(shown)
            distance.update(found.outcomes.total(), f"{found.outcomes[MISSING]:,} missing")
    click.echo(found.sentence(), err=True)
    if gone_at_source:
        click.echo(found.source_sentence(), err=True)
    return NOT_ALL if found.outcomes[MISSING] or listed.bad else OK


async def _audit_archive(listed: IdList, settings: Settings) -> Chunks:
    async with open_read_only_bucket(settings) as bucket:
        for chunk in listed.ids.chunks(_AT_ONCE):
            async for some in read_rows(bucket, settings.environment, chunk):
                yield some


async def _audit_inventory(inventory: str, listed: IdList, settings: Settings) -> Chunks:
    with open_inventory(inventory, settings) as objects, inventory_rows(objects, settings) as known:
        for chunk in listed.ids.chunks(_AT_ONCE):
            yield known.rows(chunk)
