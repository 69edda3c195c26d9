"""How many are where: the counters of a run, and of the whole ledger."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from tasks.model.account import DEFAULT_ACCOUNT
from tasks.model.job import Queue
from tasks.model.outcome import ManifestOutcome, Outcome


@dataclass(frozen=True, slots=True)
class RunCounters:
    """Counters of a run; they always add up: ``total`` is the sum of all the others.

    Attributes:
        total: evaluations of the run.
        outcomes: how many ended in each way; those that ``failed`` became dead letters.
        states: how many are ``queued``, ``leased``, ``parked`` and ``held``.
        unfed: how many of the run's list are not in the ledger yet.
        account: name of the account that its first evaluation was asked for with.
        unchanged_outcomes: what the manifests of those say that ended as ``unchanged``. Evaluations that an earlier
            version completed are missing here.
    """

    total: int
    outcomes: Mapping[Outcome, int]
    states: Mapping[str, int] = field(default_factory=dict)
    unfed: int = 0
    account: str = DEFAULT_ACCOUNT
    unchanged_outcomes: Mapping[ManifestOutcome, int] = field(default_factory=dict)

    @property
    def pending(self) -> int:
        """Evaluations of the run that have no outcome yet."""
        return self.total - sum(self.outcomes.values())

    @property
    def errors(self) -> int:
        """Evaluations that ended in a way that needs attention, unchanged ones by what their manifests say."""
        ended = sum(count for outcome, count in self.outcomes.items() if not outcome.ok)
        return ended + sum(count for outcome, count in self.unchanged_outcomes.items() if not outcome.ok)

    def describe_unchanged(self) -> str:
        """Return what the unchanged manifests say, such as ``no_documents 398, rejected 2``; empty if not known."""
        known = {outcome.value: count for outcome, count in self.unchanged_outcomes.items() if count}
        if known:
            known["unknown"] = self.outcomes[Outcome.UNCHANGED] - sum(known.values())
        return ", ".join(f"{outcome} {count}" for outcome, count in known.items() if count)

    def sentence(self) -> str:
        """Return what is not zero, in a line."""
        parts = {outcome: f"{count} {outcome}" for outcome, count in self.outcomes.items() if count}
        if unchanged := self.describe_unchanged():
            parts[Outcome.UNCHANGED] += f" ({unchanged})"
        return ", ".join(parts.values())


@dataclass(frozen=True, slots=True)
class LedgerStats:
    """How many evaluations are in which state.

    Attributes:
        queued: in each queue.
        oldest: for how long the oldest in each queue has been waiting, seconds.
        leased: in the hands of a worker.
        parked: waiting for another attempt.
        held: in each queue, waiting for their account, the archive or their run.
        next_due: seconds until the next of the parked is due, or None.
        next_cause: why that one was parked, or None.
        dead_letters: dead letters.
        held_by_account: how many wait for each account, or for the archive with it; those of which some do.
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
