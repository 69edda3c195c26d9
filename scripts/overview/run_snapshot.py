"""One look at a run, and what it says in words."""

from collections.abc import Sequence
from dataclasses import dataclass

from scripts.console.formatting import format_duration
from tasks.ledger.counters import LedgerStats, RunCounters
from tasks.resilience.holds import Hold, Reason, run_of_scope


@dataclass(frozen=True, slots=True)
class RunSnapshot:
    """One look at a run.

    Attributes:
        counters: of the run.
        stats: of everything in the ledger.
        holds: what stands still.
        served: whether a worker serves the backfill.
        per_second: evaluations that ended lately, each second; 0 while that is not known.
    """

    counters: RunCounters
    stats: LedgerStats
    holds: Sequence[Hold]
    served: bool = True
    per_second: float = 0.0

    @property
    def done(self) -> int:
        """Evaluations with an outcome."""
        return self.counters.total - self.counters.pending

    @property
    def refusals(self) -> Hold | None:
        """The hold that stops the run because its first answers were all refusals, if all else has ended."""
        if self.counters.states.get("leased"):
            return None
        return next((hold for hold in self.holds if hold.reason is Reason.ONLY_REFUSALS), None)

    @property
    def _waits(self) -> bool:
        """Whether all that is left waits for another attempt."""
        return bool(self.stats.parked) and not self.stats.leased

    def sentence(self) -> str:
        """Return what the run waits for, and the counts, in a line."""
        parts = []
        if self.holds:
            parts += [f"{hold.what} is on hold ({hold.reason}), {describe_end(hold)}" for hold in self.holds]
        elif self._waits and self.stats.next_due is not None:
            why = f" ({self.stats.next_cause})" if self.stats.next_cause else ""
            parts.append(f"{self.stats.parked} parked{why}, next attempt in {format_duration(self.stats.next_due)}")
        elif not self.served and self.counters.pending:
            parts.append("no worker serves the backfill: start one with `docv-archive worker`")
        if self.done:
            parts.append(self.counters.sentence())
        if self.per_second and self.counters.pending and not self._waits:
            left = format_duration(self.counters.pending / self.per_second)
            parts.append(f"{self.per_second:.3g} a second, {left} left")
        return ", ".join(parts) or "waiting for the first answer"


def describe_end(hold: Hold) -> str:
    """Return what ends a hold, and when, in words."""
    if run := run_of_scope(hold.scope):
        return f"until `docv-archive resume --run {run} --accept-refusals`"
    if hold.is_manual:
        return "until `docv-archive resume`"
    return f"{'next probe' if hold.needs_probe else 'goes on'} in {format_duration(hold.remaining)}"
