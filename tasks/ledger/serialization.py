"""Convert between the model and the texts that the ledger's script reads and writes."""

import enum
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from tasks.ledger.counters import RunCounters
from tasks.model.account import DEFAULT_ACCOUNT
from tasks.model.evidence import EvaluationFacts
from tasks.model.job import DeadLetter, EnqueueOptions, Failure, Job, Queue, Trigger
from tasks.model.outcome import Evidence, ManifestOutcome, Outcome
from tasks.telemetry.tracing import current_traceparent


def options_as_json(options: EnqueueOptions, eval_ids: Iterable[str], *, listed: bool) -> str:
    """Return an order of these evaluations as the script reads it; ``listed`` is said of those of a run's list."""
    fields = {
        "queue": options.queue,
        "account": options.account,
        "trigger": {name: value for name, value in asdict(options.trigger).items() if value is not None},
        "run": options.trigger.run or "",
        "refresh": options.refresh,
        "even_if_erased": options.even_if_erased,
        "delay": round(options.delay * 1000),
        "listed": listed,
    }
    if facts := {each: _facts_fields(options.facts[each]) for each in eval_ids if each in options.facts}:
        fields["facts"] = facts
    if options.without_request:
        fields["without_request"] = True
    if options.refresh_outcomes:
        fields["refresh_outcomes"] = options.refresh_outcomes
    if trace := current_traceparent():
        fields["trace"] = trace
    return json.dumps(fields)


def _facts_fields(facts: EvaluationFacts) -> dict[str, object]:
    event_at = {} if facts.event_at is None else {"event_at": round(facts.event_at * 1000)}
    return {"evidence": facts.evidence, **event_at}


def format_ending(outcome: Outcome, unchanged: ManifestOutcome | None, answer: Outcome | None) -> str:
    """Return how an evaluation ended, such as ``archived``, ``unchanged:archived`` or ``unchanged:archived:not_found``.

    Args:
        unchanged: what the manifest says, if the outcome is ``unchanged``.
        answer: what RiskOS answered; None if it was not asked. It is written only if the manifest says otherwise.
    """
    if not unchanged:
        return outcome.value
    differs = answer and answer.value != unchanged.value
    return ":".join([outcome, unchanged, answer] if answer and differs else [outcome, unchanged])


class Acceptance(enum.IntEnum):
    """What the script answers about an evaluation that it was to accept."""

    UNDER_WAY = 0
    """Accepted before, and without an outcome yet."""
    PUBLISH = 1
    """To be published now."""
    PARKED = 2
    """New, and parked until its delay is over."""


def select_published(eval_ids: Iterable[str], answers: Iterable[int]) -> list[str]:
    """Return the evaluations to publish now."""
    pairs = zip(eval_ids, answers, strict=True)
    return [eval_id for eval_id, answer in pairs if answer == Acceptance.PUBLISH]


def parse_jobs(found: Iterable[tuple[str, str]], token: str) -> Iterator[Job]:
    """Yield the job of each evaluation that has one; jobs of one order have the same text, which is parsed once."""
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
        queue=Queue(facts["queue"]),
        account=facts["account"],
        refresh=facts["refresh"],
        attempts=int(facts["attempts"]),
        lost=int(facts["lost"]),
        trigger=Trigger(**facts["trigger"]),
        suspect=facts.get("suspect", False),
        evidence=tuple(sorted(map(Evidence, facts.get("evidence", ())))),
        event_at=facts["event_at"] / 1000 if "event_at" in facts else None,
        without_request=facts.get("without_request", False),
        even_if_erased=facts.get("even_if_erased", False),
        trace=facts.get("trace"),
        forbidden_since=facts["forbidden"] / 1000 if "forbidden" in facts else None,
        refresh_outcomes=tuple(map(ManifestOutcome, facts.get("refresh_outcomes", ()))),
        only_run=_only_run(facts),
    )


def _only_run(facts: Mapping[str, Any]) -> str:
    # cjson writes an empty list as an object.
    runs: Sequence[str] = facts["runs"] or ()
    is_wanted_otherwise = facts["queue"] == Queue.LIVE or facts.get("unnamed") or len(runs) != 1
    return "" if is_wanted_otherwise else str(runs[0])


def parse_counters(fields: Mapping[Any, Any]) -> RunCounters:
    """Return the counters of a run from the fields of its hash."""
    return RunCounters(
        total=int(fields.get("total", 0)),
        outcomes={outcome: int(fields.get(outcome, 0)) for outcome in Outcome},
        states={state: int(fields.get(state, 0)) for state in ("queued", "leased", "parked", "held")},
        unfed=int(fields.get("unfed", 0)),
        account=fields.get("account", DEFAULT_ACCOUNT),
        unchanged_outcomes={each: int(fields.get(f"{Outcome.UNCHANGED}:{each}", 0)) for each in ManifestOutcome},
    )


def failure_fields(failure: Failure) -> tuple[object, ...]:
    """Return a failure as arguments of the script."""
    return failure.cause, failure.why, failure.status or "", failure.request_id or ""


def parse_dead_letter(eval_id: str, text: str) -> DeadLetter:
    """Return a dead letter from its text."""
    facts = json.loads(text)
    return DeadLetter(
        eval_id=eval_id,
        failure=Failure(facts["cause"], facts["why"], facts.get("status"), facts.get("request_id")),
        attempts=int(facts["attempts"]),
        account=facts["account"],
        queue=Queue(facts["queue"]),
        # cjson writes an empty list as an object.
        runs=tuple(facts["runs"] or ()),
        accepted=facts["accepted"] / 1000,
        first=facts["first"] / 1000,
        last=facts["last"] / 1000,
    )
