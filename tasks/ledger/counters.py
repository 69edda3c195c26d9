"""The counters of a run, and of the whole ledger."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from tasks.model.account import DEFAULT_ACCOUNT
from tasks.model.job import Queue
from tasks.model.outcome import ManifestOutcome, Outcome


@dataclass(frozen=True, slots=True)
class RunCounters:
    """Counters of a run. ``total`` is always the sum of outcomes, states and ``unfed``.

    Attributes:
        total: evaluations of the run.
        outcomes: how many ended with each outcome; the ``failed`` ones became dead letters.
        states: how many are ``queued``, ``leased``, ``parked`` and ``held``.
        unfed: how many of the run's list are not in the ledger yet.
        account: name of the account of its first evaluation.
        unchanged_outcomes: how many of the ``unchanged`` ones have a manifest with each outcome. Evaluations that an
            earlier version completed are missing here.
        last_due: seconds until the last parked evaluation is due; 0 if none is parked or the time was not read.
    """

    total: int
    outcomes: Mapping[Outcome, int]
    states: Mapping[str, int] = field(default_factory=dict)
    unfed: int = 0
    account: str = DEFAULT_ACCOUNT
    unchanged_outcomes: Mapping[ManifestOutcome, int] = field(default_factory=dict)
    last_due: float = 0.0

    @property
    def active(self) -> int:
        """Evaluations of the run that have no outcome yet and are not parked."""
        return self.pending - self.states.get("parked", 0)

    @property
    def pending(self) -> int:
        """Evaluations of the run that have no outcome yet."""
        return self.total - sum(self.outcomes.values())

    @property
    def errors(self) -> int:
        """Evaluations whose outcome needs attention; for unchanged ones, the outcome in their manifests counts."""
        ended = sum(count for outcome, count in self.outcomes.items() if not outcome.ok)
        return ended + sum(count for outcome, count in self.unchanged_outcomes.items() if not outcome.ok)

    def describe_unchanged(self) -> str:
        """Return the outcomes in unchanged manifests, such as ``no_documents 398, rejected 2``; empty if not known."""
        known = {outcome.value: count for outcome, count in self.unchanged_outcomes.items() if count}
        if known:
            known["unknown"] = self.outcomes[Outcome.UNCHANGED] - sum(known.values())
        return ", ".join(f"{outcome} {count}" for outcome, count in known.items() if count)

    def sentence(self) -> str:
        """Return the outcomes that are not zero, as one line."""
        parts = {outcome: f"{count} {outcome}" for outcome, count in self.outcomes.items() if count}
        if unchanged := self.describe_unchanged():
            parts[Outcome.UNCHANGED] += f" ({unchanged})"
        return ", ".join(parts.values())


@dataclass(frozen=True, slots=True)
class LedgerStats:
    """How many evaluations are in each state.

    Attributes:
        queued: queued evaluations of each queue.
        oldest: how long the oldest one of each queue has been queued, seconds.
        leased: evaluations that a worker has.
        parked: evaluations that wait for another attempt.
        held: evaluations of each queue that wait for the end of a hold on their account, the archive or their run.
        next_due: seconds until the first parked evaluation is due, or None.
        next_cause: why that one was parked, or None.
        next_why: the same as a sentence; empty if it is not known.
        dead_letters: dead letters.
        held_by_account: how many wait for each account, or for the archive; accounts without any are left out.
        damaged: entries and dead letters that cannot be read.
    """

    queued: Mapping[Queue, int]
    oldest: Mapping[Queue, float]
    leased: int
    parked: int
    held: Mapping[Queue, int]
    next_due: float | None
    next_cause: str | None
    dead_letters: int
    held_by_account: Mapping[str, int] = field(default_factory=dict)
    damaged: int = 0
    next_why: str = ""

    @property
    def parked_for(self) -> str:
        """Why the first parked evaluation was parked: cause and sentence; empty if that is not known."""
        return ": ".join(filter(None, (self.next_cause, self.next_why)))
