"""The facts of an event that explain why there may be no documents; nothing else of it is kept.

DocV is a step-up, so many evaluations end without it. RiskOS writes down each step as an entry of `data_enrichments`,
and names entries as each workflow likes (published answers of its sandbox).
"""

from collections.abc import Iterator, Mapping
from typing import Any

from tasks.model.evidence import find_evidence
from tasks.model.outcome import Evidence

_PROVIDER = "socuredocrequest"
_RESULTS = {"documentverification", "secondarydocument", "selfieintelligence", "selfiereverification"}


def find_event_evidence(data: Mapping[str, Any]) -> tuple[Evidence, ...]:
    """Return the evidence in the data of an event; documents and codes count in the result of a DocV step only."""
    if results := list(_docv_results(data)):
        return tuple(sorted({Evidence.DOCV_STEP, *(fact for result in results for fact in _find_in_result(result))}))
    entries = data.get("data_enrichments")
    if isinstance(entries, list) and entries and all(map(_names_provider, entries)):
        return (Evidence.NO_DOCV_STEP,)
    return ()


def _docv_results(data: object) -> Iterator[object]:
    """Yield the results of DocV steps, wherever they are, also those that are empty."""
    for members in _objects(data):
        if _provider(members).lower() == _PROVIDER:
            yield members.get("response")
        yield from (value for name, value in members.items() if _plain(name) in _RESULTS)


def _find_in_result(result: object) -> Iterator[Evidence]:
    for members in _objects(result):
        for name, value in members.items():
            match _plain(name):
                case "documenttype":
                    yield from find_evidence(value.get("type") if isinstance(value, dict) else value, ())
                case "reasoncodes" if isinstance(value, list):
                    yield from find_evidence(None, value)


def _objects(data: object) -> Iterator[dict[str, Any]]:
    """Yield every object but those of requests; without recursion, however it is nested."""
    left = [data]
    while left:
        value = left.pop()
        if isinstance(value, dict):
            yield value
            left.extend(inner for name, inner in value.items() if name != "request")
        elif isinstance(value, list):
            left.extend(value)


def _names_provider(entry: object) -> bool:
    return isinstance(entry, dict) and bool(_provider(entry))


def _provider(entry: Mapping[str, Any]) -> str:
    provider = entry.get("enrichment_provider")
    return provider.strip() if isinstance(provider, str) else ""


def _plain(name: str) -> str:
    return name.replace("_", "").lower()
