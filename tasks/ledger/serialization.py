"""Convert between the model and the texts that the ledger's script reads and writes."""

import enum
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from tasks.ledger.counters import RunCounters
from tasks.ledger.entries import DAMAGED
from tasks.model.account import DEFAULT_ACCOUNT
from tasks.model.evidence import EvaluationFacts
from tasks.model.job import DeadLetter, EnqueueOptions, Failure, Job, Queue, Trigger
from tasks.model.members import read_member
from tasks.model.outcome import Evidence, ManifestOutcome, Outcome
from tasks.telemetry.tracing import current_traceparent

_TIME_LIMIT = 253_402_300_800_000  # the year 10000
_MAX_COUNT = 10**15 - 1  # any JSON library can write it
_TRIGGER = tuple(Trigger.__dataclass_fields__)
_COUNT = re.compile(r"-?[0-9]{1,15}(\.[0-9]+)?", re.ASCII)
_STATES = ("queued", "leased", "parked", "held")
_RUN_FIELDS = frozenset(
    (
        *("total", "unfed", "fed", "listed", "changed", "account", "delivered", "refusals", "refused"),
        *("refusals_accepted", "cancelled_at", "cancellations", *_STATES, *Outcome),
    )
)


def options_as_json(options: EnqueueOptions, eval_ids: Iterable[str], *, listed: bool) -> str:
    """Return an order of these evaluations as JSON for the script; ``listed`` if they come from the list of a run."""
    fields = {
        "queue": options.queue,
        "account": options.account,
        "trigger": {name: value for name, value in asdict(options.trigger).items() if value is not None},
        "run": options.trigger.run or "",
        "refresh": options.refresh,
        "even_if_erased": options.even_if_erased and _format_order_time(options),
        "delay": round(options.delay * 1000),
        "listed": listed,
    }
    if facts := {each: _format_facts(options.facts[each]) for each in eval_ids if each in options.facts}:
        fields["facts"] = facts
    if options.without_request:
        fields["without_request"] = True
    if options.refresh_outcomes:
        fields["refresh_outcomes"] = options.refresh_outcomes
    if trace := current_traceparent():
        fields["trace"] = trace
    return json.dumps(fields)


def _format_order_time(options: EnqueueOptions) -> int | bool:
    """Return the time of an order in milliseconds, or True for now."""
    return True if options.ordered_at is None else round(options.ordered_at * 1000)


def _format_facts(facts: EvaluationFacts) -> dict[str, object]:
    event_at = {} if facts.event_at is None else {"event_at": round(facts.event_at * 1000)}
    return {"evidence": facts.evidence, **event_at}


def format_ending(outcome: Outcome, unchanged: ManifestOutcome | None, answer: Outcome | None) -> str:
    """Return the ending of an evaluation: ``archived``, ``unchanged:archived`` or ``unchanged:archived:not_found``.

    Args:
        unchanged: the outcome in the manifest, if the outcome is ``unchanged``.
        answer: the outcome of RiskOS's answer; None without a request. It is left out if the manifest has the same.
    """
    if not unchanged:
        return outcome.value
    differs = answer and answer.value != unchanged.value
    return ":".join([outcome, unchanged, answer] if answer and differs else [outcome, unchanged])


class Acceptance(enum.IntEnum):
    """The script's answer for an evaluation to accept."""

    UNDER_WAY = 0
    """It was accepted before, and has no outcome yet."""
    PUBLISH = 1
    """It is to be published now."""
    PARKED = 2
    """It is new, and parked until its delay is over."""


def select_published(eval_ids: Iterable[str], answers: Iterable[int]) -> list[str]:
    """Return the evaluations to publish now."""
    pairs = zip(eval_ids, answers, strict=True)
    return [eval_id for eval_id, answer in pairs if answer == Acceptance.PUBLISH]


def parse_jobs(found: Iterable[tuple[str, str]], token: str) -> Iterator[Job]:
    """Yield the job of each evaluation that has one. Jobs of one order have the same text, which is parsed once."""
    alike: dict[str, Job] = {}
    for eval_id, text in found:
        if text:
            known = alike.get(text) or alike.setdefault(text, _parse_job(eval_id, token, text))
            yield replace(known, eval_id=eval_id)


def _parse_job(eval_id: str, token: str, text: str) -> Job:
    facts = json.loads(text)
    return Job(
        eval_id=eval_id,
        token=token,
        # A queue of a newer release is served as the backfill.
        queue=Queue.LIVE if facts["queue"] == Queue.LIVE else Queue.BACKFILL,
        account=facts["account"],
        refresh=facts["refresh"],
        attempts=int(facts["attempts"]),
        lost=int(facts["lost"]),
        trigger=Trigger(**{name: facts["trigger"].get(name) for name in _TRIGGER}),
        suspect=facts.get("suspect", False),
        evidence=tuple(sorted(read_member(Evidence, each) for each in facts.get("evidence", ()))),
        event_at=facts["event_at"] / 1000 if "event_at" in facts else None,
        without_request=facts.get("without_request", False),
        even_if_erased=bool(facts.get("even_if_erased")),
        ordered_at=_parse_ordered_at(facts),
        trace=facts.get("trace"),
        excused_at=facts["excused"] / 1000 if "excused" in facts else None,
        forbidden_since=facts["forbidden"] / 1000 if "forbidden" in facts else None,
        refresh_outcomes=tuple(read_member(ManifestOutcome, each) for each in facts.get("refresh_outcomes", ())),
        only_run=_find_only_run(facts),
    )


def _parse_ordered_at(facts: Mapping[str, Any]) -> float | None:
    """Return the time of the last order with ``even_if_erased``; older versions recorded only that there was one."""
    ordered_at = facts.get("even_if_erased")
    if not ordered_at:
        return None
    return float(facts["accepted"] if ordered_at is True else ordered_at) / 1000


def _find_only_run(facts: Mapping[str, Any]) -> str:
    # cjson writes an empty list as an object.
    runs: Sequence[str] = facts["runs"] or ()
    is_wanted_otherwise = facts["queue"] == Queue.LIVE or facts.get("unnamed") or len(runs) != 1
    return "" if is_wanted_otherwise else str(runs[0])


def read_count(text: str | bytes | None) -> int:
    """Return a counter; 0 if it is missing or damaged."""
    return int(float(text)) if text and _COUNT.fullmatch(str(text)) else 0


def read_score(score: float | None) -> int:
    """Return a count that is a score in a sorted set; 0 if it is missing or damaged."""
    return min(int(score), _MAX_COUNT) if score is not None and math.isfinite(score) else 0


def parse_counters(fields: Mapping[Any, Any]) -> RunCounters:
    """Return the counters of a run from the fields of its hash."""
    total, unfed = read_count(fields.get("total")), read_count(fields.get("unfed"))
    states = {state: read_count(fields.get(state)) for state in _STATES}
    outcomes = {outcome: read_count(fields.get(outcome)) for outcome in Outcome}
    others = total - unfed - sum(states.values()) - sum(outcomes.values())
    return RunCounters(
        total=total,
        outcomes=outcomes | _find_unknown_outcomes(fields, others),
        states=states,
        unfed=unfed,
        account=fields.get("account", DEFAULT_ACCOUNT),
        unchanged_outcomes={each: read_count(fields.get(f"{Outcome.UNCHANGED}:{each}")) for each in ManifestOutcome},
    )


def _find_unknown_outcomes(fields: Mapping[Any, Any], count: int) -> dict[Outcome, int]:
    """Return the counts of outcomes that only a newer release knows; they must add up to ``count``."""
    named = {
        read_member(Outcome, name): read_count(value)
        for name, value in fields.items()
        if name not in _RUN_FIELDS and ":" not in name and read_count(value) > 0
    }
    if not named or count <= 0:
        return {}
    return named if sum(named.values()) == count else {read_member(Outcome, "unknown"): count}


def format_failure(failure: Failure) -> tuple[object, ...]:
    """Return a failure as arguments of the script."""
    return failure.cause, failure.why, failure.status or "", failure.request_id or ""


def parse_dead_letter(eval_id: str, text: str) -> DeadLetter:
    """Return a dead letter from its text, or a stand-in if the text is damaged."""
    try:
        return _parse_dead_letter(eval_id, json.loads(text))
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        failure = Failure(DAMAGED, "its dead letter in Redis cannot be read: enqueue the evaluation again")
        return DeadLetter(eval_id, failure, 0, DEFAULT_ACCOUNT, Queue.BACKFILL, (), 0.0, 0.0, 0.0)


def _parse_dead_letter(eval_id: str, facts: Mapping[str, Any]) -> DeadLetter:
    status, request_id = facts.get("status"), facts.get("request_id")
    texts = (facts["cause"], facts["why"], facts["account"], facts["queue"], request_id or "", *(facts["runs"] or ()))
    if not all(isinstance(text, str) for text in texts):
        raise TypeError
    return DeadLetter(
        eval_id=eval_id,
        failure=Failure(facts["cause"], facts["why"], None if status is None else _parse_count(status), request_id),
        attempts=_parse_count(facts["attempts"]),
        account=facts["account"],
        queue=read_member(Queue, facts["queue"]),
        # cjson writes an empty list as an object.
        runs=tuple(facts["runs"] or ()),
        accepted=_parse_time(facts["accepted"]),
        first=_parse_time(facts["first"]),
        last=_parse_time(facts["last"]),
    )


def _parse_count(number: float) -> int:
    """Return a count.

    Raises:
        ValueError: it is negative or too large.
    """
    if not 0 <= number <= _MAX_COUNT:
        raise ValueError(number)
    return int(number)


def _parse_time(milliseconds: float) -> float:
    """Return seconds since the epoch.

    Raises:
        ValueError: it is negative, or later than the year 9999.
    """
    if not 0 <= milliseconds < _TIME_LIMIT:
        raise ValueError(milliseconds)
    return milliseconds / 1000
