"""What the ledger holds: an evaluation that was ordered, why, who works on it, and what is left of one that failed."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from tasks.model.evidence import EvaluationFacts
from tasks.model.outcome import Evidence, ManifestOutcome


class Queue(enum.StrEnum):
    """How urgent an evaluation is."""

    LIVE = "live"
    BACKFILL = "backfill"


@dataclass(frozen=True, slots=True)
class Trigger:
    """Why an evaluation was accepted; it stands in the manifest.

    Attributes:
        source: ``webhook``, ``intake``, ``message``, ``enqueue``, ``run`` or ``backfill``.
        run: name of the run it came with.
        event_type: type of the webhook event.
        event_id: its ID.
    """

    source: str
    run: str | None = None
    event_type: str | None = None
    event_id: str | None = None


@dataclass(frozen=True, slots=True)
class EnqueueOptions:
    """How evaluations are wanted that are accepted.

    Attributes:
        queue: how urgent they are.
        account: name of the account to ask with.
        trigger: why.
        refresh: ask RiskOS although a manifest is there.
        delay: seconds before the first request of each; the ledger waits, not a worker.
        facts: what is known of some of the evaluations.
        without_request: record that there are no documents and do not ask RiskOS, unless another order wants that.
        even_if_erased: archive them although they were erased.
        refresh_outcomes: ask RiskOS although a manifest is there, if it says one of these.
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


@dataclass(frozen=True, slots=True)
class Job:
    """One evaluation in the ledger, as a worker takes it.

    Attributes:
        eval_id: the evaluation.
        token: the lease; only who shows it may speak for the entry.
        queue: how urgent it is.
        account: name of the account to ask with.
        refresh: ask RiskOS although a manifest is there.
        attempts: attempts that failed so far.
        lost: how often a worker died, or lost its lease, over it.
        trigger: why it was accepted.
        suspect: whether it failed before, so that another failure says nothing of the service.
        evidence: what is known of why there may be no documents.
        event_at: when the evaluation happened, as seconds since the epoch; None if that is not known.
        without_request: RiskOS is not asked, for every order of it said so.
        even_if_erased: archive it although it was erased.
        trace: where it was accepted, as W3C ``traceparent``; None where nobody traces.
        forbidden_since: when RiskOS first answered 403, seconds of Redis's clock; None if it never did.
        refresh_outcomes: ask RiskOS although a manifest is there, if it says one of these.
        only_run: the run that alone wants the evaluation, so that its hold stops it; empty if there is none.
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
    refresh_outcomes: tuple[ManifestOutcome, ...] = ()
    only_run: str = ""


@dataclass(frozen=True, slots=True)
class Failure:
    """What is kept of an attempt that failed: our own words only.

    Attributes:
        cause: a short fixed word.
        why: a sentence.
        status: the HTTP status that was answered, where there was one.
        request_id: RiskOS's ID of the request, if it gave one.
    """

    cause: str
    why: str = ""
    status: int | None = None
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An evaluation that was tried enough. Times are seconds since the epoch, of Redis's clock.

    Attributes:
        eval_id: the evaluation.
        failure: what the last attempt ended with.
        attempts: attempts that failed.
        account: name of its account.
        queue: how urgent it was.
        runs: names of the runs that it was counted for as failed.
        accepted: when it was accepted.
        first: when the first attempt failed.
        last: when the last one did.
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
