"""How many are where: the counters of a run, and of the whole ledger."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from tasks.model.account import DEFAULT_ACCOUNT
from tasks.model.job import Queue
from tasks.model.outcome import Outcome


@dataclass(frozen=True, slots=True)
class RunCounters:
    """Counters of a run; they always add up: ``total`` is the sum of all the others.

    Attributes:
        total: evaluations of the run.
        outcomes: how many ended in each way; those that ``failed`` became dead letters.
        states: how many are ``queued``, ``leased``, ``parked`` and ``held``.
        unfed: how many of the run's list are not in the ledger yet.
        account: name of the account that its first evaluation was asked for with.
    """

    total: int
    outcomes: Mapping[Outcome, int]
    states: Mapping[str, int] = field(default_factory=dict)
    unfed: int = 0
    account: str = DEFAULT_ACCOUNT

    @property
    def pending(self) -> int:
        """Evaluations of the run that have no outcome yet."""
        return self.total - sum(self.outcomes.values())

    def sentence(self) -> str:
        """Return what is not zero, in a line."""
        return ", ".join(f"{count} {outcome}" for outcome, count in self.outcomes.items() if count)


@dataclass(frozen=True, slots=True)
class LedgerStats:
    """How many evaluations are in which state.

    Attributes:
        queued: in each queue.
        oldest: for how long the oldest in each queue has been waiting, seconds.
        leased: in the hands of a worker.
        parked: waiting for another attempt.
        held: in each queue, waiting for their account or the archive.
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
