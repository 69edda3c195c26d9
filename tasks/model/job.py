"""The records of the ledger: orders, jobs and dead letters."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from tasks.model.evidence import EvaluationFacts
from tasks.model.outcome import Evidence, ManifestOutcome


class Queue(enum.StrEnum):
    """The queue of an evaluation. Live evaluations never wait behind a backfill."""

    LIVE = "live"
    BACKFILL = "backfill"


@dataclass(frozen=True, slots=True)
class Trigger:
    """Why an evaluation was accepted. The manifest records it.

    Attributes:
        source: ``webhook``, ``intake``, ``message``, ``enqueue``, ``run``, ``backfill`` or ``quarantine``.
        run: name of the run that it was accepted for.
        event_type: type of the webhook event.
        event_id: ID of the webhook event.
    """

    source: str
    run: str | None = None
    event_type: str | None = None
    event_id: str | None = None


@dataclass(frozen=True, slots=True)
class EnqueueOptions:
    """An order: the options with which evaluations are accepted.

    Attributes:
        queue: their queue.
        account: name of the account that requests them.
        trigger: why they are accepted.
        refresh: ask RiskOS even if there is a manifest.
        delay: seconds before the first request for each; they are parked in the ledger meanwhile.
        facts: known facts about some of the evaluations.
        without_request: record that there are no documents without asking RiskOS, unless another order wants a request.
        even_if_erased: archive them even if they were erased before the order.
        refresh_outcomes: ask RiskOS even if there is a manifest, provided that it has one of these outcomes.
        ordered_at: time of the order, as seconds since the epoch; None for now.
    """

    queue: Queue
    account: str
    trigger: Trigger
    refresh: bool = False
    delay: float = 0.0
    facts: Mapping[str, EvaluationFacts] = field(default_factory=dict)
    without_request: bool = False
    even_if_erased: bool = False
    refresh_outcomes: tuple[ManifestOutcome, ...] = ()
    ordered_at: float | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """An evaluation that a worker has leased.

    Attributes:
        eval_id: the evaluation.
        token: identifies the lease; only its holder may change the entry.
        queue: its queue.
        account: name of the account that requests it.
        refresh: ask RiskOS even if there is a manifest.
        attempts: number of failed attempts.
        lost: how often a worker died, or lost its lease, while it had the evaluation.
        trigger: why it was accepted.
        suspect: whether it failed before, so that another failure is no evidence against the service.
        excused_at: when a service or a machine was last blamed for its failure, seconds on Redis's clock; None if that
            never happened.
        evidence: why there may be no documents.
        event_at: when the evaluation happened, as seconds since the epoch; None if that is not known.
        without_request: do not ask RiskOS, because all its orders say so.
        even_if_erased: archive it even if it was erased before ``ordered_at``.
        trace: the span in which it was accepted, as W3C ``traceparent``; None without tracing.
        forbidden_since: when RiskOS first answered 403, seconds on Redis's clock; None if it never did.
        refresh_outcomes: ask RiskOS even if there is a manifest, provided that it has one of these outcomes.
        only_run: the only run that wants the evaluation, so that a hold on it stops the evaluation; empty if several
            runs or other orders want it.
        ordered_at: time of the last order with ``even_if_erased``, as seconds since the epoch. None if that is not
            known, so that every erasure counts as earlier.
    """

    eval_id: str
    token: str
    queue: Queue
    account: str
    refresh: bool
    attempts: int
    lost: int
    trigger: Trigger
    suspect: bool = False
    evidence: tuple[Evidence, ...] = ()
    event_at: float | None = None
    without_request: bool = False
    even_if_erased: bool = False
    trace: str | None = None
    forbidden_since: float | None = None
    excused_at: float | None = field(default=None, compare=False)
    refresh_outcomes: tuple[ManifestOutcome, ...] = ()
    only_run: str = ""
    ordered_at: float | None = None

    def covers_erasure(self, erased_at: float) -> bool:
        """Return whether the evaluation is to be archived even though it was erased at this time."""
        return self.even_if_erased and (self.ordered_at is None or erased_at < self.ordered_at)


@dataclass(frozen=True, slots=True)
class Failure:
    """The record of a failed attempt, without any foreign text.

    Attributes:
        cause: a short fixed word.
        why: a sentence.
        status: the HTTP status of the response, if there was one.
        request_id: RiskOS's ID of the request, if it gave one.
    """

    cause: str
    why: str = ""
    status: int | None = None
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An evaluation that is out of attempts. Times are seconds since the epoch on Redis's clock.

    Attributes:
        eval_id: the evaluation.
        failure: the failure of the last attempt.
        attempts: number of failed attempts.
        account: name of its account.
        queue: its queue.
        runs: names of the runs that count it as failed.
        accepted: when it was accepted.
        first: when the first attempt failed.
        last: when the last attempt failed.
    """

    eval_id: str
    failure: Failure
    attempts: int
    account: str
    queue: Queue
    runs: tuple[str, ...]
    accepted: float
    first: float
    last: float
