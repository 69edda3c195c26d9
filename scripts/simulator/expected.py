"""The expected outcome of each scenario, and a mix of scenarios for demos."""

import hashlib

from scripts.simulator.scenarios import LAYOUTS, Scenario, eval_id_for
from tasks.model.outcome import Outcome

_NO_DOCUMENTS = 0x02
_FAILED = frozenset(
    {
        Scenario.FORBIDDEN_ALWAYS,
        Scenario.ERROR_500_ALWAYS,
        Scenario.CUT_SHORT_ALWAYS,
        Scenario.HTML_ALWAYS,
        Scenario.REDIRECT_ALWAYS,
        Scenario.FOREIGN_FILENAME_ALWAYS,
        Scenario.GATEWAY_404_ALWAYS,
        Scenario.GATEWAY_MESSAGE_ALWAYS,
        Scenario.EMPTY_200_ALWAYS,
    }
)


def expected_outcome(scenario: Scenario) -> Outcome:
    """Return the outcome that a correct archiver gives an evaluation that was never archived before."""
    if scenario in _FAILED:
        return Outcome.FAILED
    if scenario is Scenario.NOT_FOUND:
        return Outcome.NOT_FOUND
    if scenario is Scenario.REJECTED:
        return Outcome.REJECTED
    if scenario.family == _NO_DOCUMENTS:
        return Outcome.NO_DOCUMENTS
    if scenario.has_damaged_bundle and scenario is not Scenario.DAMAGED_ONCE:
        return Outcome.UNREADABLE
    return Outcome.ARCHIVED


# Out of a hundred. Scenarios that pause a whole account and slow ones are left out: a demo is short.
_SHOWN = {
    Scenario.NO_DOCUMENTS: 2,
    Scenario.NO_DOCUMENTS_NESTED: 1,
    Scenario.NO_DOCUMENTS_PLAIN_MSG: 1,
    Scenario.NO_DOCUMENTS_LONG: 1,
    Scenario.NO_DOCUMENTS_SHORT: 1,
    Scenario.NO_DOCUMENTS_UNSUPPORTED: 1,
    Scenario.NOT_FOUND: 2,
    Scenario.REJECTED: 1,
    Scenario.RATE_LIMITED_SECONDS: 1,
    Scenario.ERROR_500_ONCE: 2,
    Scenario.ERROR_503_TWICE: 1,
    Scenario.ERROR_502_ONCE: 1,
    Scenario.ERROR_500_ALWAYS: 1,
    Scenario.CUT_SHORT_ONCE: 1,
    Scenario.RESET_ONCE: 1,
    Scenario.HTML_ONCE: 1,
    Scenario.FOREIGN_FILENAME_ONCE: 1,
    Scenario.DAMAGED_ONCE: 1,
    Scenario.DAMAGED_ALWAYS: 1,
    Scenario.OVERLAPPING_ALWAYS: 1,
}
_HUNDRED = 100


def demo_ids(count: int) -> list[str]:
    """Return IDs of a mix of scenarios for a demo: mostly archived ones, with the others spread among them.

    The mix is always the same. A hundred IDs have every scenario of it, and a longer list begins with a shorter one.
    """
    special = [scenario for scenario, times in _SHOWN.items() for _ in range(times)]
    plain = [LAYOUTS[number % len(LAYOUTS)] for number in range(_HUNDRED - len(special))]
    places = sorted(range(_HUNDRED), key=lambda place: hashlib.sha256(bytes([place])).digest())
    pattern = [(special + plain)[place] for place in places]
    return [eval_id_for(pattern[number % _HUNDRED], number) for number in range(count)]
