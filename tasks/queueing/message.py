"""A Celery message, as producers may send it, made safe.

The contract: task ``docv.archive`` on queue ``live`` or ``backfill``, with the keyword arguments ``eval_ids`` (1 to
100 IDs), and if wanted ``refresh`` (ask RiskOS although there is a manifest), ``run`` (a name to count under),
``account`` (whom to ask with), ``settle`` (seconds before the first request) and ``evidence`` (what is known of
evaluations, by their IDs).
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tasks.errors import BadEvalId, BadMessage, BadRunName
from tasks.model.evaluation import parse_eval_id
from tasks.model.evidence import EvaluationFacts
from tasks.model.job import Queue, Trigger
from tasks.model.submitted_facts import assign_facts, parse_submitted_evidence
from worker.config.settings import MAX_SETTLE_SECONDS

MAX_BATCH = 100
"""Most IDs in one message."""
_RUN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_KNOWN = {"eval_ids", "accepted", "refresh", "run", "account", "settle", "evidence"}


@dataclass(frozen=True, slots=True)
class Message:
    """What a message asks for.

    Attributes:
        eval_ids: canonical IDs, without duplicates.
        bad: what was named beside them and is no ID; the good ones do not suffer for it.
        queue: the queue it came on.
        accepted: whether the ledger knows them already; only our own publisher says so.
        refresh: ask RiskOS although there is a manifest.
        trigger: what stands in the manifest.
        account: name of the account that it asks for; None if it names none.
        settle_seconds: delay before the first request.
        facts: what it says of some of the evaluations.
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


def read_message(queue: object, positional: Sequence[object], arguments: dict[str, Any]) -> Message:
    """Return what a message asks for.

    Args:
        queue: routing key it came with.
        positional: positional arguments; the contract has none.
        arguments: keyword arguments.

    Raises:
        InvalidInput: it does not fit the contract.
    """
    if positional:
        raise BadMessage("it has positional arguments; use keyword arguments")
    unknown = arguments.keys() - _KNOWN
    if unknown:
        raise BadMessage(f"it has {len(unknown)} unknown argument(s); known are {', '.join(sorted(_KNOWN))}")
    eval_ids = arguments.get("eval_ids")
    if not isinstance(eval_ids, list) or not 1 <= len(eval_ids) <= MAX_BATCH:
        raise BadMessage(f"eval_ids must be a list of 1 to {MAX_BATCH} IDs")
    if not isinstance(queue, str) or queue not in set(Queue):
        raise BadMessage(f"it came on no queue of ours; they are {', '.join(Queue)}")
    run, account = arguments.get("run"), arguments.get("account")
    if not isinstance(account, str | None):
        raise BadMessage("account must be the name of one")
    good, bad = parse_eval_ids(eval_ids)
    return Message(
        eval_ids=good,
        bad=bad,
        queue=Queue(queue),
        accepted=_flag(arguments, "accepted"),
        refresh=_flag(arguments, "refresh"),
        trigger=Trigger("message", run=None if run is None else parse_run(run)),
        account=account,
        settle_seconds=_settle(arguments.get("settle", 0.0)),
        facts=_facts(arguments.get("evidence", {}), good, eval_ids),
    )


def parse_eval_ids(texts: Iterable[str]) -> tuple[tuple[str, ...], tuple[BadEvalId, ...]]:
    """Return the canonical IDs among the texts, each once, and the errors of the others."""
    good: dict[str, None] = {}
    bad: list[BadEvalId] = []
    for text in texts:
        try:
            good[parse_eval_id(text)] = None
        except BadEvalId as error:
            bad.append(error)
    return tuple(good), tuple(bad)


def parse_run(name: object) -> str:
    """Return the name of a run; every door calls this first.

    Raises:
        BadRunName: it is no name.
    """
    if not isinstance(name, str) or not _RUN.fullmatch(name):
        raise BadRunName
    return name


def _facts(value: object, good: Sequence[str], named: Sequence[object]) -> dict[str, EvaluationFacts]:
    try:
        return assign_facts(parse_submitted_evidence(value), good, named)
    except ValueError as error:
        raise BadMessage(f"evidence: {error}") from None


def _settle(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MAX_SETTLE_SECONDS:
        raise BadMessage(f"settle must be a number of seconds from 0 to {MAX_SETTLE_SECONDS}")
    return float(value)


def _flag(arguments: dict[str, Any], name: str) -> bool:
    value = arguments.get(name, False)
    if not isinstance(value, bool):
        raise BadMessage(f"{name} must be true or false")
    return value
