"""Check the facts that producers submit about evaluations, and reduce them to evidence and a time."""

from collections.abc import Collection, Iterable, Mapping
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)

from tasks.errors import BadEvalId
from tasks.model.evaluation import parse_eval_id
from tasks.model.evidence import EvaluationFacts, find_evidence, parse_event_at

_LONGEST_TEXT, _LONGEST_CODE, _MOST_CODES = 200, 100, 100
_RULES = {
    "document_type": f"document_type must be a text of at most {_LONGEST_TEXT} characters",
    "reason_codes": f"reason_codes must be a list of at most {_MOST_CODES} texts of at most {_LONGEST_CODE} characters",
    "event_at": "event_at must be an RFC 3339 time with a zone, such as 2026-01-31T12:00:00Z",
}
_SHAPE = "expected IDs of eval_ids, each with an object of document_type, reason_codes and event_at"


def _event_time(moment: str) -> str:
    if parse_event_at(moment) is None:
        raise ValueError("not a time")
    return moment


class SubmittedFacts(BaseModel):
    """The facts that a producer submits about an evaluation. Only the evidence in them and the time are kept."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    document_type: Annotated[str, Field(max_length=_LONGEST_TEXT)] | None = Field(
        default=None, description="documentType.type of the DocV step; Military explains missing documents."
    )
    reason_codes: (
        Annotated[list[Annotated[str, Field(max_length=_LONGEST_CODE)]], Field(max_length=_MOST_CODES)] | None
    ) = Field(default=None, description="reasonCodes of the DocV step; R844 (under 18) explains missing documents.")
    event_at: Annotated[str, AfterValidator(_event_time)] | None = Field(
        default=None, description="When the evaluation happened: RFC 3339, with a zone."
    )

    def reduce(self) -> EvaluationFacts:
        """Return the evidence and the time."""
        return EvaluationFacts(
            find_evidence(self.document_type, self.reason_codes or ()), parse_event_at(self.event_at)
        )


def _in_one_sentence(value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
    try:
        return validate(value)
    except ValidationError as error:
        places = error.errors(include_url=False, include_input=False, include_context=False)[0]["loc"]
        raise ValueError(next((rule for name, rule in _RULES.items() if name in places[1:]), _SHAPE)) from None


SubmittedEvidence = Annotated[dict[str, SubmittedFacts], WrapValidator(_in_one_sentence)]
"""A field of a request: the facts of evaluations, by the texts of their IDs."""
_EVIDENCE = TypeAdapter[Any](SubmittedEvidence)


def parse_submitted_evidence(value: object) -> dict[str, SubmittedFacts]:
    """Return the submitted facts, by the texts of IDs.

    Raises:
        ValueError: the value has another shape; the message is a sentence without any part of the value.
    """
    try:
        return dict(_EVIDENCE.validate_python(value))
    except ValidationError as error:
        raise ValueError(error.errors()[0]["msg"].removeprefix("Value error, ")) from None


def assign_facts(
    submitted: Mapping[str, SubmittedFacts], eval_ids: Collection[str], texts: Iterable[object]
) -> dict[str, EvaluationFacts]:
    """Return the facts about each evaluation of a request.

    Args:
        submitted: the facts, by the texts of IDs.
        eval_ids: the canonical IDs of the request.
        texts: the texts of the request; facts about a text that is not an ID are dropped.

    Raises:
        ValueError: some facts are about other evaluations; the message is a sentence without their IDs.
    """
    if not submitted:
        return {}
    known, named = frozenset(eval_ids), {text for text in texts if isinstance(text, str)}
    found: dict[str, EvaluationFacts] = {}
    unknown = 0
    for text, facts in submitted.items():
        try:
            eval_id = parse_eval_id(text)
        except BadEvalId:
            unknown += text not in named
            continue
        if eval_id in found:
            raise ValueError("it repeats an evaluation, in upper and in lower case")
        unknown += eval_id not in known
        found[eval_id] = facts.reduce()
    if unknown:
        raise ValueError(f"{unknown} of its IDs are not in eval_ids")
    return found
