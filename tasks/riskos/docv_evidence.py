"""Find the facts in an event, or in RiskOS's record, that explain missing documents; nothing else is kept.

DocV is a step-up, and many evaluations end without it. RiskOS records each step as an entry of `data_enrichments`. Each
workflow may choose the names of its entries (published responses of the sandbox).
"""

import functools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import orjson

from tasks.model.evidence import find_evidence
from tasks.model.outcome import Evidence

_PROVIDER = "socuredocrequest"
_RESULTS = {"documentverification", "secondarydocument", "selfieintelligence", "selfiereverification"}

_CONTAINERS = (dict, list)
_COMPLETED = "evaluation_completed"


def find_record_evidence(record: bytes) -> tuple[Evidence, ...]:
    """Return the evidence in RiskOS's record of an evaluation, the response to ``GET /api/evaluation/{eval_id}``.

    An evaluation that has not ended may still reach a DocV step.
    """
    try:
        data = orjson.loads(record)
    except orjson.JSONDecodeError:
        return ()
    if not isinstance(data, dict):
        return ()
    status, found = data.get("eval_status"), find_docv_evidence(data)
    if not isinstance(status, str) or not status.strip() or status.strip().lower() == _COMPLETED:
        return found
    return (*(each for each in found if each is not Evidence.NO_DOCV_STEP), Evidence.NOT_COMPLETE)


def find_docv_evidence(data: Mapping[str, Any]) -> tuple[Evidence, ...]:
    """Return the evidence in the data of an event, or in a record.

    Document types and reason codes count only in the result of a DocV step.
    """
    if found := set(_docv_evidence(data)):
        return tuple(sorted(found))
    entries = data.get("data_enrichments")
    if isinstance(entries, list) and entries and all(map(_names_provider, entries)):
        return (Evidence.NO_DOCV_STEP,)
    return ()


def _docv_evidence(data: object) -> Iterator[Evidence]:
    """Yield ``DOCV_STEP`` for each DocV step, and the evidence in its result; without recursion, at any depth."""
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
                # The request to a provider is not a result.
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


# The same names come in every event.
@functools.lru_cache(4096)
def _plain(name: str) -> str:
    return name.replace("_", "").lower()
