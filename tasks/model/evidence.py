"""What is known of an evaluation besides its ID: evidence for missing documents, and when it happened."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from tasks.model.outcome import Evidence

_LATEST = 253_370_764_800.0  # the year 9999: later ones are not for every library, and of no evaluation


@dataclass(frozen=True, slots=True)
class EvaluationFacts:
    """What is known of an evaluation besides its ID.

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
        document_type: such as ``Military`` or ``Military ID``, in any case; anything but a text says nothing.
        reason_codes: such as ``R844``, in any case.
    """
    found = set[Evidence]()
    if _plain(document_type).partition(" ")[0] == "military":
        found.add(Evidence.MILITARY_ID)
    if "r844" in map(_plain, reason_codes):
        found.add(Evidence.UNDER_AGE)
    return tuple(sorted(found))


def parse_event_at(moment: object) -> float | None:
    """Return an RFC 3339 time as seconds since the epoch; None if it is not one, or not one of an evaluation."""
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


def _plain(value: object) -> str:
    return value.strip().lower() if isinstance(value, str) else ""
