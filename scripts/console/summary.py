"""Summarize a run on standard output: a table for people, or one JSON object for programs."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import click
import orjson
from rich.console import Console
from rich.table import Table

from tasks.ledger.counters import RunCounters
from tasks.model.outcome import ManifestOutcome, NoDocumentsReason, Outcome

if TYPE_CHECKING:
    # Commands that only read the archive need no Redis client.
    from tasks.resilience.holds import Hold

MEANINGS = {
    Outcome.ARCHIVED: "documents and manifest are in the archive",
    Outcome.UNCHANGED: "a manifest was already in the archive, and nothing has changed",
    Outcome.NO_DOCUMENTS: 'RiskOS says "No Documents Found", or there was no DocV step; recorded',
    Outcome.NOT_FOUND: "RiskOS does not know the evaluation; recorded",
    Outcome.REJECTED: "RiskOS refuses the request; recorded with its message",
    Outcome.WITHHELD: "RiskOS has images that must not be kept: military ID, minor, or due by the schedule; recorded",
    Outcome.UNREADABLE: "bundle damaged or unsafe: see `docv-archive quarantine list`",
    Outcome.FAILED: "out of attempts: see `docv-archive dead-letters list`",
    Outcome.CANCELLED: "cancelled by an operator before a request to RiskOS, or between two attempts",
}
REASONS = {
    NoDocumentsReason.MILITARY: "RiskOS deletes images of military IDs at once",
    NoDocumentsReason.MINOR: "RiskOS deletes images of persons under 18 at once",
    NoDocumentsReason.NO_DOCV_STEP: "the evaluation had no DocV step, so nothing was captured",
    NoDocumentsReason.NOT_COMPLETE: "the evaluation had not ended when RiskOS was asked",
    NoDocumentsReason.RETENTION_OR_UNKNOWN: "RiskOS had already deleted them, or never had any",
}
_PENDING = {
    "unfed": "to be queued",
    "queued": "queued",
    "leased": "in flight",
    "parked": "parked until another attempt",
    "held": "waiting for a hold to end",
}
_COLOURS = {
    Outcome.ARCHIVED: "green",
    Outcome.UNCHANGED: "green",
    Outcome.NO_DOCUMENTS: "cyan",
    Outcome.NOT_FOUND: "yellow",
    Outcome.REJECTED: "yellow",
    Outcome.WITHHELD: "cyan",
    Outcome.UNREADABLE: "red",
    Outcome.FAILED: "red",
    Outcome.CANCELLED: "yellow",
}


@dataclass(frozen=True, slots=True)
class RunSummary:
    """The result of a run.

    Attributes:
        run: its name.
        counters: its counters.
        seconds: how long it took, or has taken until now.
        hold: the hold of the run, placed because all its first answers were refusals, or None.
    """

    run: str
    counters: RunCounters
    seconds: float
    hold: "Hold | None" = None

    @property
    def is_ok(self) -> bool:
        """Whether every evaluation has an outcome and none needs attention."""
        return not self.counters.pending and not self.counters.errors and not self.hold

    @property
    def states(self) -> dict[str, int]:
        """The number of evaluations without an outcome, by state."""
        return {"unfed": self.counters.unfed, **self.counters.states}

    def sentence(self) -> str:
        """Return the counts in a line."""
        return f"{self.counters.sentence()}, in {self.seconds:.1f} s"

    def as_json(self) -> bytes:
        """Return the summary as one JSON object."""
        outcomes = self.counters.outcomes
        return orjson.dumps(
            {
                "run": self.run,
                "total": self.counters.total,
                "outcomes": {outcome.value: count for outcome, count in outcomes.items()},
                "unchanged_outcomes": unchanged_as_json(self.counters),
                "pending": self.counters.pending,
                "dead_letters": outcomes[Outcome.FAILED],
                "states": self.states,
                "on_hold": self.hold.reason if self.hold else None,
                "seconds": round(self.seconds, 3),
            }
        )


def unchanged_as_json(counters: RunCounters) -> dict[str, int]:
    """Return the outcomes in the manifests of unchanged evaluations, by name."""
    return {outcome.value: counters.unchanged_outcomes.get(outcome, 0) for outcome in ManifestOutcome}


def print_summary(summary: RunSummary, *, as_json: bool) -> None:
    """Print a summary on standard output, and on standard error how to continue a run on hold."""
    if as_json:
        click.echo(summary.as_json())
    else:
        Console().print(outcome_table(summary))
    if summary.hold:
        click.echo(
            f"run {summary.run} is on hold ({summary.hold.reason}): {summary.hold.note}. If they were deleted long "
            f"ago, continue with: docv-archive resume --run {summary.run} --accept-refusals",
            err=True,
        )


def outcome_table(summary: RunSummary) -> Table:
    """Return the table of outcomes."""
    table = Table(title=summary.run, title_justify="left", show_footer=True, box=None, pad_edge=False)
    table.add_column("outcome", footer="total")
    table.add_column("", justify="right", footer=f"{summary.counters.total:,}")
    table.add_column("what it means", footer=f"in {summary.seconds:.1f} s")
    for outcome, count in summary.counters.outcomes.items():
        style = _COLOURS.get(outcome, "red") if count else "dim"
        table.add_row(
            f"[{style}]{outcome}[/]", f"[{style}]{count:,}[/]", f"[dim]{_meaning(outcome, summary.counters)}[/]"
        )
    if summary.counters.pending:
        places = ", ".join(f"{count:,} {_PENDING[state]}" for state, count in summary.states.items() if count)
        table.add_row("[bold]pending[/]", f"[bold]{summary.counters.pending:,}[/]", f"no outcome yet: {places}")
    return table


def _meaning(outcome: Outcome, counters: RunCounters) -> str:
    unchanged = counters.describe_unchanged() if outcome is Outcome.UNCHANGED else ""
    return (
        f"{unchanged}: these were in the archive before"
        if unchanged
        else MEANINGS.get(outcome, "an outcome of a newer release: upgrade docv-archive")
    )
