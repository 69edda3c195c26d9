"""Ask the archive, not the logs: for each ID its outcome, or that it is missing."""

from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

import click

from scripts.archive_access.evaluation_rows import MISSING, EvaluationRow, read_rows, write_csv, write_json_lines
from scripts.archive_access.open_bucket import open_read_only_bucket
from scripts.audit.inventory_holdings import inventory_rows
from scripts.audit.inventory_source import open_inventory
from scripts.console.exit_codes import NOT_ALL, OK
from scripts.console.options import account_option, column_option, json_option
from scripts.console.read_only import ProgressLine, run_read_only
from scripts.ids.id_list import IdList, read_id_list
from worker.config.accounts import load_account_settings
from worker.config.settings import Settings

Chunks = AsyncIterator[Sequence[EvaluationRow]]
_AT_ONCE = 8_192


@dataclass(slots=True)
class AuditTotals:
    """What all rows say together.

    Attributes:
        outcomes: how many of each.
        damaged: manifests that say nothing; they count as missing, too.
        documents: how many.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    damaged: int = 0
    documents: int = 0

    def add(self, some: Sequence[EvaluationRow]) -> None:
        """Count some rows."""
        for row in some:
            self.outcomes[row.outcome] += 1
            self.damaged += row.is_damaged
            self.documents += row.documents

    def sentence(self) -> str:
        """Return the counts in a line."""
        counts = [f"{count:,} {outcome}" for outcome, count in sorted(self.outcomes.items())]
        damaged = f" ({self.damaged:,} of those have a damaged manifest)" if self.damaged else ""
        return f"{self.outcomes.total():,} evaluations: {', '.join(counts)}{damaged}; {self.documents:,} documents"


@click.command()
@click.argument("source", metavar="FILE")
@column_option
@click.option("--inventory", metavar="FILE", help="Look into this S3 Inventory report instead of asking for each ID.")
@account_option()
@json_option("Print one JSON object a line instead of CSV.")
def audit(source: str, column: str | None, inventory: str | None, account: str | None, *, as_json: bool) -> int:
    """Ask the archive, not the logs: for each ID its outcome, or `missing`.

    FILE is text, CSV, JSON lines or Parquet, also gzipped; - is standard input; s3://bucket/key works, too. Neither
    Redis nor RiskOS is needed. Exit code 1 says that something is missing or damaged, or that a line names no
    evaluation.

    --inventory takes the manifest.json of a report (CSV or Parquet; its data files in the same place), or one data
    file, here or in S3. Then no manifest is read: the outcome is `present` or `missing`, as of the report, and
    documents and bytes are counted from the keys, superseded documents included.
    """
    settings = load_account_settings(account)
    write = write_json_lines if as_json else write_csv
    with read_id_list(source, column, settings) as listed:
        rows = _audit_inventory(inventory, listed, settings) if inventory else _audit_archive(listed, settings)
        return run_read_only(_audit(rows, listed, write))


async def _audit(rows: Chunks, listed: IdList, write: Callable[[Sequence[EvaluationRow]], None]) -> int:
    found = AuditTotals()
    write(())
    with ProgressLine("audit", len(listed.ids)) as distance:
        async for some in rows:
            write(some)
            found.add(some)
            distance.update(found.outcomes.total(), f"{found.outcomes[MISSING]:,} missing")
    click.echo(found.sentence(), err=True)
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
