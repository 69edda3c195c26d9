"""RiskOS's record of an evaluation, which ``GET /api/evaluation/{eval_id}`` returns, as far as it concerns images."""

from typing import Any

from scripts.simulator.scenarios import Scenario, scenario_of

_DOCV = "SocureDocRequest"
_COMPLETED, _PAUSED = "evaluation_completed", "evaluation_paused"


def record_of(eval_id: str) -> dict[str, Any]:
    """Return the record of an evaluation, in the shape of the sandbox answers that RiskOS's vendor published."""
    scenario = scenario_of(eval_id)
    if scenario is Scenario.NO_DOCV_STEP:
        return _record(eval_id, _COMPLETED, [_enrichment("Email Risk", "Socure", {"emailRisk": {"score": 0.1}})])
    if scenario is Scenario.NOT_COMPLETE:
        return _record(eval_id, _PAUSED, [])
    is_military, is_minor = scenario is Scenario.NO_DOCUMENTS_MILITARY, scenario is Scenario.NO_DOCUMENTS_MINOR
    result = {
        "decision": {"name": "standard", "value": "accept"},
        "documentType": {"type": "Military" if is_military else "Drivers License", "country": "USA"},
        "reasonCodes": ["I831", "R844"] if is_minor else ["I831"],
    }
    step = _enrichment("Socure Document Request", _DOCV, {"documentVerification": result})
    return _record(eval_id, _COMPLETED, [step])


def _record(eval_id: str, status: str, enrichments: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "id": f"customer-{eval_id[-12:]}",
        "eval_id": eval_id,
        "eval_status": status,
        "environment_name": "Sandbox",
        "data_enrichments": enrichments,
    }


def _enrichment(name: str, provider: str, response: dict[str, Any]) -> dict[str, Any]:
    return {"enrichment_name": name, "enrichment_provider": provider, "status_code": 200, "response": response}
