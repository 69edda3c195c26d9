"""The answers of each scenario: to the first request, the second, and all later ones."""

from scripts.simulator import damage
from scripts.simulator.answers import Delivery, SimulatedRequest, SimulatedResponse
from scripts.simulator.messages import NO_DOCUMENTS, NO_ROUTE, REJECTED
from scripts.simulator.scenarios import Scenario, scenario_of
from scripts.simulator.steps import (
    Step,
    damaged,
    delivered,
    documents,
    empty,
    error,
    gateway,
    one_more_document,
    other_evaluation,
    page,
    redirect,
    wait,
    wait_until,
)

# One answer after the other; the last one repeats. Scenarios that are not listed differ only in their layout.
_SEQUENCES: dict[Scenario, tuple[Step, ...]] = {
    **{scenario: (error(400, body),) for scenario, body in NO_DOCUMENTS.items()},
    Scenario.NOT_FOUND: (error(404),),
    Scenario.REJECTED: (error(400, REJECTED),),
    Scenario.RATE_LIMITED_SECONDS: (wait("Retry-After"), documents),
    Scenario.RATE_LIMITED_DATE: (wait_until, documents),
    Scenario.RATE_LIMITED_X: (wait("X-Retry-After"), documents),
    Scenario.RATE_LIMITED_BARE: (wait(), documents),
    Scenario.UNAUTHORIZED_ONCE: (error(401), documents),
    Scenario.FORBIDDEN_ONCE: (error(403), documents),
    Scenario.FORBIDDEN_ALWAYS: (error(403),),
    Scenario.ERROR_500_ONCE: (error(500), documents),
    Scenario.ERROR_503_TWICE: (error(503), error(503), documents),
    Scenario.ERROR_502_ONCE: (gateway(502), documents),
    Scenario.ERROR_504_ONCE: (gateway(504), documents),
    Scenario.ERROR_408_ONCE: (error(408), documents),
    Scenario.ERROR_500_ALWAYS: (error(500),),
    Scenario.CUT_SHORT_ONCE: (delivered(Delivery.CUT), documents),
    Scenario.CUT_SHORT_ALWAYS: (delivered(Delivery.CUT),),
    Scenario.RESET_ONCE: (delivered(Delivery.RESET), documents),
    Scenario.SLOW_HEADERS: (delivered(Delivery.LATE),),
    Scenario.SLOW_BODY: (delivered(Delivery.DRIBBLE),),
    Scenario.HTML_ONCE: (page, documents),
    Scenario.HTML_ALWAYS: (page,),
    Scenario.REDIRECT_ALWAYS: (redirect,),
    Scenario.FOREIGN_FILENAME_ONCE: (other_evaluation, documents),
    Scenario.FOREIGN_FILENAME_ALWAYS: (other_evaluation,),
    Scenario.GATEWAY_404_ONCE: (empty(404), documents),
    Scenario.GATEWAY_404_ALWAYS: (empty(404),),
    Scenario.GATEWAY_MESSAGE_ALWAYS: (error(404, NO_ROUTE),),
    Scenario.EMPTY_200_ALWAYS: (empty(200),),
    Scenario.DAMAGED_ONCE: (damaged(damage.wrong_crc), documents),
    Scenario.DAMAGED_ALWAYS: (damaged(damage.wrong_crc),),
    Scenario.GARBAGE_ALWAYS: (damaged(damage.garbage),),
    Scenario.TRUNCATED_ALWAYS: (damaged(damage.truncated),),
    Scenario.EMPTY_ALWAYS: (damaged(damage.empty),),
    Scenario.OVERLAPPING_ALWAYS: (damaged(damage.overlapping),),
    Scenario.FORGED_SIZE_ALWAYS: (damaged(damage.forged_size),),
    Scenario.CHANGING: (documents, one_more_document),
}


def answer_to(question: SimulatedRequest) -> SimulatedResponse:
    """Return RiskOS's answer to a request."""
    sequence = _sequence(question.eval_id)
    return sequence[min(question.attempt, len(sequence)) - 1](question)


def has_several_answers(eval_id: str) -> bool:
    """Return whether the answer depends on how often the evaluation was requested."""
    return len(_sequence(eval_id)) > 1


def _sequence(eval_id: str) -> tuple[Step, ...]:
    return _SEQUENCES.get(scenario_of(eval_id), (documents,))
