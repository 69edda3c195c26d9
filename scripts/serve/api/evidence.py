"""The two facts of an event that explain why there may be no documents; nothing else of it is kept."""

from collections.abc import Iterator
from typing import Any

from tasks.model.outcome import Evidence


def find_evidence(data: object) -> tuple[Evidence, ...]:
    """Return what the data of an event tell, wherever in them it stands.

    That RiskOS deletes images of military IDs and of persons under 18 is in its documentation, "Image Retrieval".
    """
    return tuple(sorted({fact for name, value in _members(data) for fact in _evidence_from(name, value)}))


def _members(data: object) -> Iterator[tuple[str, Any]]:
    """Yield every name and value of every object; without recursion, however it is nested."""
    left = [data]
    while left:
        value = left.pop()
        if isinstance(value, dict):
            yield from value.items()
            left.extend(value.values())
        elif isinstance(value, list):
            left.extend(value)


def _evidence_from(name: str, value: object) -> Iterator[Evidence]:
    match name.replace("_", "").lower():
        case "documenttype":
            kind = value.get("type") if isinstance(value, dict) else value
            if _is(kind, "military"):
                yield Evidence.MILITARY_ID
        case "reasoncodes" if isinstance(value, list):
            if any(_is(code, "r844") for code in value):
                yield Evidence.UNDER_AGE


def _is(value: object, expected: str) -> bool:
    return isinstance(value, str) and value.strip().lower() == expected
