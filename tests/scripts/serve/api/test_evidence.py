"""Two facts are found wherever they stand, and nothing else is."""

from typing import Any

import pytest

from scripts.serve.api.evidence import find_evidence
from tasks.model.outcome import Evidence

MILITARY, UNDER_AGE = Evidence.MILITARY_ID, Evidence.UNDER_AGE


@pytest.mark.parametrize(
    ("data", "facts"),
    [
        ({"documentType": {"type": "Military"}}, {MILITARY}),
        ({"documentType": {"type": "MILITARY", "country": "USA"}}, {MILITARY}),
        ({"document_type": "military"}, {MILITARY}),
        ({"a": [{"b": {"documentType": {"type": "Military"}}}]}, {MILITARY}),
        ({"reasonCodes": ["I100", "R844"]}, {UNDER_AGE}),
        ({"reason_codes": ["r844"]}, {UNDER_AGE}),
        ({"a": [[{"ReasonCodes": ["R844"]}]], "documentType": "Military"}, {UNDER_AGE, MILITARY}),
        ({"documentType": {"type": "Passport"}}, set()),
        ({"documentType": ["Military"]}, set()),
        ({"type": "Military", "other": {"code": "R844"}}, set()),
        ({"reasonCodes": "R844"}, set()),
        ({"reasonCodes": [844, None, {"R844": 1}]}, set()),
        ("Military", set()),
        (None, set()),
    ],
)
def test_the_two_facts_are_found_and_no_others(data: Any, facts: set[Evidence]) -> None:
    assert set(find_evidence(data)) == facts
