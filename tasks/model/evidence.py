"""Known facts about an evaluation: evidence that explains missing documents, and the time of the evaluation."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from tasks.model.outcome import Evidence

_LATEST = 253_370_764_800.0  # the year 9999: many libraries support no later time, and no evaluation has one


@dataclass(frozen=True, slots=True)
class EvaluationFacts:
    """Known facts about an evaluation.

    Attributes:
        evidence: why there may be no documents, sorted.
        event_at: when the evaluation happened, as seconds since the epoch; None if that is not known.
    """

    evidence: tuple[Evidence, ...] = ()
    event_at: float | None = None


def find_evidence(document_type: object, reason_codes: Iterable[object]) -> tuple[Evidence, ...]:
    """Return the evidence in the result of a DocV step.

    RiskOS deletes images of military IDs and of persons under 18 at once (its documentation, "Image Retrieval").

    Args:
        document_type: such as ``Military`` or ``Military ID``, in any case. A value that is not a text is ignored.
        reason_codes: such as ``R844``, in any case. Values that are not texts are ignored.
    """
    found = set[Evidence]()
    if _normalize(document_type).partition(" ")[0] == "military":
        found.add(Evidence.MILITARY_ID)
    if "r844" in map(_normalize, reason_codes):
        found.add(Evidence.UNDER_AGE)
    return tuple(sorted(found))


def parse_event_at(moment: object) -> float | None:
    """Return an RFC 3339 time as seconds since the epoch; None if it is not one, or before 1970 or after 9998."""
    seconds = parse_time(moment)
    return seconds if seconds is not None and 0 <= seconds < _LATEST else None


def parse_time(moment: object) -> float | None:
    """Return an RFC 3339 time as seconds since the epoch, or None if it is not one with a zone."""
    if not isinstance(moment, str):
        return None
    try:
        parsed = datetime.fromisoformat(moment)
        return parsed.timestamp() if parsed.tzinfo else None
    except (ValueError, OverflowError):
        return None


def _normalize(value: object) -> str:
    return value.strip().lower() if isinstance(value, str) else ""
