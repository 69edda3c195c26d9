"""The state of a run at one moment, and the sentence that describes it."""

from collections.abc import Sequence
from dataclasses import dataclass

from scripts.console.formatting import format_duration, format_number
from tasks.ledger.counters import LedgerStats, RunCounters
from tasks.resilience.holds import Hold, Reason, run_of_scope


@dataclass(frozen=True, slots=True)
class RunSnapshot:
    """The state of a run at one moment.

    Attributes:
        counters: counters of the run.
        stats: counts of the whole ledger.
        holds: holds that stop the run.
        served: whether a worker serves the queue `backfill`.
        is_worker_starting: whether the worker of this command is starting, and no other one serves that queue.
        per_second: evaluations per second that ended lately; 0 while that is not known.
    """

    counters: RunCounters
    stats: LedgerStats
    holds: Sequence[Hold]
    served: bool = True
    is_worker_starting: bool = False
    per_second: float = 0.0

    @property
    def done(self) -> int:
        """Evaluations with an outcome."""
        return self.counters.total - self.counters.pending

    @property
    def refusals(self) -> Hold | None:
        """The hold that was placed because all first answers of the run were refusals, once nothing is in flight."""
        if self.counters.states.get("leased"):
            return None
        return next((hold for hold in self.holds if hold.reason is Reason.ONLY_REFUSALS), None)

    @property
    def _waits(self) -> bool:
        """Whether every evaluation that is left waits for another attempt."""
        return bool(self.stats.parked) and not self.stats.leased

    def sentence(self) -> str:
        """Return one line: what the run waits for, the counts, speed and time left."""
        parts = []
        if self.holds:
            parts += [f"{hold.what} is on hold ({describe_reason(hold)}), {describe_end(hold)}" for hold in self.holds]
        elif self._waits and self.stats.next_due is not None:
            why = f" ({self.stats.parked_for})" if self.stats.next_cause else ""
            parts.append(f"{self.stats.parked} parked{why}, next attempt in {format_duration(self.stats.next_due)}")
        elif self.is_worker_starting and self.counters.pending:
            parts.append("the worker is starting")
        elif not self.served and self.counters.pending:
            parts.append("no worker serves the backfill: start one with `docv-archive worker`")
        if self.done:
            parts.append(self.counters.sentence())
        if self.per_second and self.counters.active and not self._waits:
            left = format_duration(max(self.counters.active / self.per_second, self.counters.last_due))
            parts.append(f"{format_number(self.per_second)} per second, {left} left")
        elif self.counters.last_due and not self.holds:
            parts.append(f"{format_duration(self.counters.last_due)} left")
        return ", ".join(parts) or "waiting for the first answer"


def placed_by(hold: Hold) -> str:
    """Return the name of the operator who placed a hold, as a part of a sentence; empty if that is not known."""
    return f", by {hold.by}" if hold.by else ""


def describe_reason(hold: Hold) -> str:
    """Return the reason of a hold, followed by its note if there is one."""
    return f"{hold.reason}: {hold.note}" if hold.note else str(hold.reason)


def describe_end(hold: Hold) -> str:
    """Return in words what ends a hold, or when it ends."""
    if run := run_of_scope(hold.scope):
        return f"until `docv-archive resume --run {run} --accept-refusals`"
    if hold.is_manual:
        return "until `docv-archive resume`"
    return f"{'next probe' if hold.needs_probe else 'continues'} in {format_duration(hold.remaining)}"
