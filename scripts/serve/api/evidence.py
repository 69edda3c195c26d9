"""The facts of an event that explain why there may be no documents; nothing else of it is kept.

DocV is a step-up, so many evaluations end without it. RiskOS writes down each step as an entry of `data_enrichments`,
and names entries as each workflow likes (published answers of its sandbox).
"""

import functools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tasks.model.evidence import find_evidence
from tasks.model.outcome import Evidence

_PROVIDER = "socuredocrequest"
_RESULTS = {"documentverification", "secondarydocument", "selfieintelligence", "selfiereverification"}

_CONTAINERS = (dict, list)


def find_event_evidence(data: Mapping[str, Any]) -> tuple[Evidence, ...]:
    """Return the evidence in the data of an event; documents and codes count in the result of a DocV step only."""
    if found := set(_docv_evidence(data)):
        return tuple(sorted(found))
    entries = data.get("data_enrichments")
    if isinstance(entries, list) and entries and all(map(_names_provider, entries)):
        return (Evidence.NO_DOCV_STEP,)
    return ()


def _docv_evidence(data: object) -> Iterator[Evidence]:
    """Yield ``DOCV_STEP`` for each DocV step, and what its result says; without recursion, however it is nested."""
    left = [(data, False)]
    while left:
        value, is_result = left.pop()
        if isinstance(value, list):
            left.extend((inner, is_result) for inner in value if isinstance(inner, _CONTAINERS))
        elif isinstance(value, dict):
            is_step = "enrichment_provider" in value and _provider(value).lower() == _PROVIDER
            if is_step:
                yield Evidence.DOCV_STEP
            for name, inner in value.items():
                plain = _plain(name)
                if plain in _RESULTS:
                    yield Evidence.DOCV_STEP
                if is_result:
                    yield from _evidence_from(plain, inner)
                # What RiskOS was asked is not a result.
                if isinstance(inner, _CONTAINERS) and name != "request":
                    left.append((inner, is_result or plain in _RESULTS or (is_step and name == "response")))


def _evidence_from(plain_name: str, value: object) -> Iterable[Evidence]:
    match plain_name:
        case "documenttype":
            return find_evidence(value.get("type") if isinstance(value, dict) else value, ())
        case "reasoncodes" if isinstance(value, list):
            return find_evidence(None, value)
    return ()


def _names_provider(entry: object) -> bool:
    return isinstance(entry, dict) and bool(_provider(entry))


def _provider(entry: Mapping[str, Any]) -> str:
    provider = entry.get("enrichment_provider")
    return provider.strip() if isinstance(provider, str) else ""


# Events have the same names again and again.
@functools.lru_cache(4096)
def _plain(name: str) -> str:
    return name.replace("_", "").lower()
