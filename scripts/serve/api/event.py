"""Parse webhook events of RiskOS. Only IDs, the type, the time and evidence are taken from an event."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from scripts.serve.metrics import EventResult
from tasks.errors import BadEvalId
from tasks.model.evaluation import parse_eval_id
from tasks.model.evidence import EvaluationFacts, parse_event_at, parse_time
from tasks.model.outcome import Evidence
from tasks.riskos.docv_evidence import find_docv_evidence

# True if the evaluation has changed, so that RiskOS is asked even if a manifest exists (RiskOS documentation,
# "Webhooks"). All other types are ignored.
_COMPLETED = "evaluation_completed"
_CHANGED = {_COMPLETED: False, "reevaluation": True, "case_attachment_added": True}
# Visible ASCII without "@", so that no e-mail address is kept.
_SAFE_ID = re.compile(r"[\x21-\x3f\x41-\x7e]{1,128}")


@dataclass(frozen=True, slots=True)
class RequestedEvaluation:
    """An event that requests an evaluation to be archived.

    Attributes:
        eval_id: the evaluation's ID in canonical form.
        event_type: one of the three types in ``_CHANGED``.
        event_id: the event's ID if it is safe to store, else None.
        key: key by which a repetition of the event is recognized; None if the event has no ID.
        refresh: whether the evaluation has changed.
        happened_at: time of the event in seconds since the epoch, or None.
        facts: evidence and time from the event.
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
        """Return the seconds until the first request, which is due ``settle`` after the event; at most ``settle``."""
        if self.happened_at is None:
            return settle
        return min(max(self.happened_at + settle - now, 0.0), settle)


@dataclass(frozen=True, slots=True)
class IgnoredEvent:
    """An event that requests nothing from this archive."""

    because: EventResult


@dataclass(frozen=True, slots=True)
class UnusableEvent:
    """An event that requests an evaluation without a valid ID or environment.

    Attributes:
        event_type: one of the three types in ``_CHANGED``.
        event_id: the event's ID if it is safe to store, else None.
        cause: a short fixed word.
        why: the cause as a sentence.
    """

    event_type: str
    event_id: str | None
    cause: str
    why: str


def read_event(body: Mapping[str, Any], environment: str) -> RequestedEvaluation | IgnoredEvent | UnusableEvent:
    """Parse an event.

    Args:
        body: the event.
        environment: the environment of the account; events of another one are ignored.
    """
    event_type, data = body.get("event_type"), body.get("data")
    if not isinstance(event_type, str) or event_type not in _CHANGED:
        return IgnoredEvent(EventResult.IGNORED_TYPE)
    if not isinstance(data, dict):
        return _make_unusable(body, "no_data", "an event came without data, so it names no evaluation")
    return _check_environment(data, body, environment) or _parse_requested(event_type, data, body)


def _make_unusable(body: Mapping[str, Any], cause: str, why: str) -> UnusableEvent:
    return UnusableEvent(body["event_type"], _parse_event_id(body), cause, why)


def _parse_event_id(body: Mapping[str, Any]) -> str | None:
    """Return the event's ID if it is safe to store, else None."""
    event_id = body.get("event_id")
    return event_id if isinstance(event_id, str) and _SAFE_ID.fullmatch(event_id) else None


def _check_environment(
    data: Mapping[str, Any], body: Mapping[str, Any], environment: str
) -> IgnoredEvent | UnusableEvent | None:
    """Return the result for an event of another environment, else None. Events of cases may not name theirs."""
    named = data.get("environment_name", environment)
    if named is None or named == "":
        return IgnoredEvent(EventResult.TEST_PING)
    if not isinstance(named, str):
        return _make_unusable(body, "bad_environment", "the data.environment_name of an event is not a string")
    return None if named.strip().lower() == environment else IgnoredEvent(EventResult.OTHER_ENVIRONMENT)


def _parse_requested(
    event_type: str, data: Mapping[str, Any], body: Mapping[str, Any]
) -> RequestedEvaluation | UnusableEvent:
    if "eval_id" not in data:
        return _make_unusable(body, "no_eval_id", "an event came without data.eval_id, so it names no evaluation")
    try:
        eval_id = parse_eval_id(data["eval_id"])
    except BadEvalId:
        return _make_unusable(body, "bad_eval_id", "the data.eval_id of an event is not a UUID")
    event_id = body.get("event_id")
    event_id = event_id if isinstance(event_id, str) else ""
    # The same event ID with another type or evaluation is another event.
    key = hashlib.sha256(json.dumps([event_id, event_type, eval_id]).encode()).hexdigest()[:32]
    return RequestedEvaluation(
        eval_id=eval_id,
        event_type=event_type,
        event_id=_parse_event_id(body),
        key=key if event_id else None,
        refresh=_CHANGED[event_type],
        happened_at=parse_time(body.get("event_at")),
        facts=EvaluationFacts(find_docv_evidence(data), parse_event_at(body.get("event_at"))),
    )
