"""An event of RiskOS: what it asks of us, if anything. Only IDs, a type, a time and evidence are taken out of it."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from scripts.serve.api.evidence import find_event_evidence
from scripts.serve.metrics import EventResult
from tasks.errors import BadEvalId
from tasks.model.evaluation import parse_eval_id
from tasks.model.evidence import EvaluationFacts, parse_event_at, parse_time
from tasks.model.outcome import Evidence

# Whether the evaluation has changed, so that RiskOS is asked although a manifest is there (RiskOS documentation,
# "Webhooks"). Every other type, known or not, is no concern of ours.
_COMPLETED = "evaluation_completed"
_CHANGED = {_COMPLETED: False, "reevaluation": True, "case_attachment_added": True}
_SAFE_ID = re.compile(r"[\x21-\x7e]{1,128}")


@dataclass(frozen=True, slots=True)
class RequestedEvaluation:
    """An evaluation is to be archived.

    Attributes:
        eval_id: the evaluation, canonical.
        event_type: one of the three types that ask for it.
        event_id: the event's ID where it is safe to keep, else None.
        key: what the event is known by, or None where it has no ID.
        refresh: whether the evaluation has changed.
        happened_at: when, as seconds since the epoch; None where it does not say so.
        facts: what it says of the evaluation.
    """

    eval_id: str
    event_type: str
    event_id: str | None
    key: str | None
    refresh: bool
    happened_at: float | None
    facts: EvaluationFacts

    @property
    def is_without_docv(self) -> bool:
        """Whether the evaluation was completed without a DocV step, so that there is nothing to archive."""
        return self.event_type == _COMPLETED and Evidence.NO_DOCV_STEP in self.facts.evidence

    def settle_delay(self, settle: float, now: float) -> float:
        """Return the seconds until the first request: ``settle`` after the event, and never more than that."""
        if self.happened_at is None:
            return settle
        return min(max(self.happened_at + settle - now, 0.0), settle)


@dataclass(frozen=True, slots=True)
class IgnoredEvent:
    """Nothing is asked of us."""

    because: EventResult


@dataclass(frozen=True, slots=True)
class UnusableEvent:
    """Something is asked of us, but nobody can say for which evaluation.

    Attributes:
        event_type: one of the three types that ask for an evaluation.
        cause: a short fixed word.
        why: a sentence.
    """

    event_type: str
    cause: str
    why: str


def read_event(body: Mapping[str, Any], environment: str) -> RequestedEvaluation | IgnoredEvent | UnusableEvent:
    """Return what an event asks of us.

    Args:
        body: the event.
        environment: ours; events of another one are none of our business.
    """
    event_type, data = body.get("event_type"), body.get("data")
    if not isinstance(event_type, str) or event_type not in _CHANGED:
        return IgnoredEvent(EventResult.IGNORED_TYPE)
    if not isinstance(data, dict):
        return UnusableEvent(event_type, "no_data", "an event came without data, so it names no evaluation")
    return _environment(event_type, data, environment) or _parse_requested(event_type, data, body)


def _environment(event_type: str, data: Mapping[str, Any], ours: str) -> IgnoredEvent | UnusableEvent | None:
    """Return why the event is not for us; None where it is. Events of cases may not name their environment."""
    named = data.get("environment_name", ours)
    if named is None or named == "":
        return IgnoredEvent(EventResult.TEST_PING)
    if not isinstance(named, str):
        return UnusableEvent(
            event_type, "bad_environment", "an event names its environment by something that is no text"
        )
    return None if named.strip().lower() == ours else IgnoredEvent(EventResult.OTHER_ENVIRONMENT)


def _parse_requested(
    event_type: str, data: Mapping[str, Any], body: Mapping[str, Any]
) -> RequestedEvaluation | UnusableEvent:
    if "eval_id" not in data:
        return UnusableEvent(event_type, "no_eval_id", "an event came without data.eval_id, so it names no evaluation")
    try:
        eval_id = parse_eval_id(data["eval_id"])
    except BadEvalId:
        return UnusableEvent(event_type, "bad_eval_id", "the data.eval_id of an event is no UUID")
    event_id = body.get("event_id")
    event_id = event_id if isinstance(event_id, str) else ""
    # One ID with another content is another event.
    key = hashlib.sha256(json.dumps([event_id, event_type, eval_id]).encode()).hexdigest()[:32]
    return RequestedEvaluation(
        eval_id=eval_id,
        event_type=event_type,
        event_id=event_id if _SAFE_ID.fullmatch(event_id) else None,
        key=key if event_id else None,
        refresh=_CHANGED[event_type],
        happened_at=parse_time(body.get("event_at")),
        facts=EvaluationFacts(find_event_evidence(data), parse_event_at(body.get("event_at"))),
    )
