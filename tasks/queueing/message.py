"""Validate the Celery messages of producers.

The contract is the task ``docv.archive`` on queue ``live`` or ``backfill``, with the keyword argument ``eval_ids`` (1
to 100 IDs). Optional arguments are ``refresh`` (ask RiskOS even if there is a manifest), ``run`` (the name of a run
that counts them), ``account`` (the account that requests them), ``settle`` (seconds before the first request) and
``evidence`` (facts about evaluations, by their IDs).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tasks.errors import BadEvalId, BadMessage
from tasks.model.evaluation import parse_eval_id
from tasks.model.evidence import EvaluationFacts
from tasks.model.job import Queue, Trigger
from tasks.model.run_name import parse_run
from tasks.model.submitted_facts import assign_facts, parse_submitted_evidence
from worker.config.settings import MAX_SETTLE_SECONDS

MAX_BATCH = 100
"""Maximum number of IDs in a message."""
_ARGUMENTS = {"eval_ids", "accepted", "refresh", "run", "account", "settle", "evidence"}


@dataclass(frozen=True, slots=True)
class Message:
    """A valid message.

    Attributes:
        eval_ids: canonical IDs, without duplicates.
        bad: the errors of texts that are not IDs; the other IDs are processed.
        queue: the queue that it came from.
        accepted: whether the ledger has accepted the IDs already; only our own publisher sets this.
        refresh: ask RiskOS even if there is a manifest.
        trigger: the trigger for the manifest.
        account: name of the account that requests them; None if the message has none.
        settle_seconds: delay before the first request.
        facts: facts about some of the evaluations.
        traceparent: the producer's span, as W3C ``traceparent``; None if it does not trace.
    """

    eval_ids: tuple[str, ...]
    bad: tuple[BadEvalId, ...]
    queue: Queue
    accepted: bool
    refresh: bool
    trigger: Trigger
    account: str | None = None
    settle_seconds: float = 0.0
    facts: Mapping[str, EvaluationFacts] = field(default_factory=dict)
    traceparent: str | None = None


def read_message(
    queue: object, positional: Sequence[object], arguments: dict[str, Any], traceparent: str | None = None
) -> Message:
    """Return a validated message.

    Args:
        queue: its routing key.
        positional: positional arguments; the contract has none.
        arguments: keyword arguments.
        traceparent: header of that name.

    Raises:
        InvalidInput: it breaks the contract.
    """
    if positional:
        raise BadMessage("it has positional arguments; use keyword arguments")
    unknown = arguments.keys() - _ARGUMENTS
    if unknown:
        raise BadMessage(f"it has {len(unknown)} unknown argument(s); known are {', '.join(sorted(_ARGUMENTS))}")
    eval_ids = arguments.get("eval_ids")
    if not isinstance(eval_ids, list) or not 1 <= len(eval_ids) <= MAX_BATCH:
        raise BadMessage(f"eval_ids must be a list of 1 to {MAX_BATCH} IDs")
    if not isinstance(queue, str) or queue not in set(Queue):
        raise BadMessage(f"its queue must be one of {', '.join(Queue)}")
    run, account = arguments.get("run"), arguments.get("account")
    if not isinstance(account, str | None):
        raise BadMessage("account must be the name of an account, as a text")
    good, bad = parse_eval_ids(eval_ids)
    return Message(
        eval_ids=good,
        bad=bad,
        queue=Queue(queue),
        accepted=_read_flag(arguments, "accepted"),
        refresh=_read_flag(arguments, "refresh"),
        trigger=Trigger("message", run=None if run is None else parse_run(run)),
        account=account,
        settle_seconds=_read_settle(arguments.get("settle", 0.0)),
        facts=_read_facts(arguments.get("evidence", {}), good, eval_ids),
        traceparent=traceparent,
    )


def parse_eval_ids(texts: Iterable[str]) -> tuple[tuple[str, ...], tuple[BadEvalId, ...]]:
    """Return the canonical IDs among the texts, without duplicates, and the errors of the other texts."""
    good: dict[str, None] = {}
    bad: list[BadEvalId] = []
    for text in texts:
        try:
            good[parse_eval_id(text)] = None
        except BadEvalId as error:
            bad.append(error)
    return tuple(good), tuple(bad)


def _read_facts(value: object, good: Sequence[str], named: Sequence[object]) -> dict[str, EvaluationFacts]:
    try:
        return assign_facts(parse_submitted_evidence(value), good, named)
    except ValueError as error:
        raise BadMessage(f"evidence: {error}") from None


def _read_settle(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MAX_SETTLE_SECONDS:
        raise BadMessage(f"settle must be a number of seconds from 0 to {MAX_SETTLE_SECONDS}")
    return float(value)


def _read_flag(arguments: dict[str, Any], name: str) -> bool:
    value = arguments.get(name, False)
    if not isinstance(value, bool):
        raise BadMessage(f"{name} must be true or false")
    return value
