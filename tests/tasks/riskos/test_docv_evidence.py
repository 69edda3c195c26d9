"""Evidence in an event is found only in the results of DocV steps."""

from typing import Any

import pytest

from tasks.model.outcome import Evidence
from tasks.riskos.docv_evidence import find_docv_evidence

MILITARY, UNDER_AGE = Evidence.MILITARY_ID, Evidence.UNDER_AGE
DOCV, NO_DOCV = Evidence.DOCV_STEP, Evidence.NO_DOCV_STEP
KYC = {"enrichment_name": "KYC", "enrichment_provider": "SocureKYC", "response": {"kyc": {"reasonCodes": ["I919"]}}}


def docv(response: Any, **changes: Any) -> dict[str, Any]:
    return {"enrichment_name": "any", "enrichment_provider": "SocureDocRequest", "response": response} | changes


def found(*entries: Any, **others: Any) -> set[Evidence]:
    return set(find_docv_evidence({"data_enrichments": [*entries], **others}))


@pytest.mark.parametrize("document_type", ["Military", "MILITARY", "Military ID", "military id card", " Military "])
@pytest.mark.parametrize("shape", [lambda text: {"type": text, "country": "USA"}, lambda text: text])
def test_a_military_id_is_found_in_any_spelling_and_shape(document_type: str, shape: Any) -> None:
    assert found(docv({"documentVerification": {"documentType": shape(document_type)}})) == {DOCV, MILITARY}
    assert found(docv({"document_type": shape(document_type)})) == {DOCV, MILITARY}


@pytest.mark.parametrize("document_type", ["Militaryish", "Non Military", "Passport", "", None, 7, ["Military"]])
def test_other_document_types_are_not_evidence(document_type: Any) -> None:
    assert found(docv({"documentType": {"type": document_type}})) == {DOCV}
    assert found(docv({"documentType": document_type})) == {DOCV}


@pytest.mark.parametrize("codes", [["I100", "R844"], ["r844"], [844, None, {"R844": 1}, " R844 "]])
def test_a_minor_is_found_by_a_reason_code(codes: Any) -> None:
    assert found(docv({"documentVerification": {"reasonCodes": codes}})) == {DOCV, UNDER_AGE}
    assert found(docv({"reason_codes": codes})) == {DOCV, UNDER_AGE}


@pytest.mark.parametrize("codes", ["R844", ["R8440"], [844], None, {"R844": True}])
def test_other_reason_codes_are_not_evidence(codes: Any) -> None:
    assert found(docv({"reasonCodes": codes})) == {DOCV}


@pytest.mark.parametrize(
    "name", ["documentVerification", "secondaryDocument", "selfieIntelligence", "selfieReverification"]
)
def test_each_of_the_four_docv_flows_is_found_by_its_result(name: str) -> None:
    result = {"documentType": {"type": "Military"}, "reasonCodes": ["R844"]}
    entry = docv({name: result}, enrichment_provider="Somebody")
    assert found(KYC, entry) == {DOCV, MILITARY, UNDER_AGE}
    assert found(KYC, docv({"data": [{name: None}]}, enrichment_provider="Somebody")) == {DOCV}


def test_a_docv_step_is_found_before_it_has_a_result() -> None:
    assert found(KYC, docv(None)) == {DOCV}
    assert found(KYC, {"enrichment_provider": "socuredocrequest "}) == {DOCV}


def test_facts_outside_of_a_docv_result_are_not_evidence() -> None:
    stated = {"documentType": {"type": "Military"}, "reasonCodes": ["R844"]}
    assert found(KYC | {"response": stated}, individual=stated, **stated) == {NO_DOCV}
    assert found(docv({}, request={"documentVerification": stated, **stated}), **stated) == {DOCV}
    both = docv({"kyc": stated, "documentVerification": {"reasonCodes": []}}, enrichment_provider="SocureID")
    assert found(both) == {DOCV}


def test_an_evaluation_had_no_docv_step_when_all_steps_name_other_providers() -> None:
    assert found(KYC, KYC | {"enrichment_provider": "SocureFraud"}) == {NO_DOCV}
    assert found(KYC | {"request": {"documentVerification": {}}}) == {NO_DOCV}


@pytest.mark.parametrize(
    "entry",
    [
        *({"enrichment_provider": provider} for provider in (None, "", " ", 7)),
        *({}, {"provider": "SocureKYC"}, None, "SocureKYC", ["SocureKYC"]),
    ],
)
def test_nothing_is_concluded_when_a_step_names_no_provider(entry: Any) -> None:
    assert found(KYC, entry) == set()


@pytest.mark.parametrize(
    "data", [{}, *({"data_enrichments": steps} for steps in (None, [], {}, {"a": KYC}, "SocureKYC", 7))]
)
def test_nothing_is_concluded_without_a_list_of_steps(data: dict[str, Any]) -> None:
    assert find_docv_evidence(data) == ()
