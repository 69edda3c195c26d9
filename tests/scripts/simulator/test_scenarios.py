import uuid

import pytest

from scripts.simulator.scenarios import LAYOUTS, Scenario, eval_id_for, scenario_of
from tasks.model.evaluation import parse_eval_id


@pytest.mark.parametrize("scenario", Scenario)
@pytest.mark.parametrize("number", [0, 1, 2**48 - 1])
def test_an_id_encodes_its_scenario(scenario: Scenario, number: int) -> None:
    eval_id = eval_id_for(scenario, number)
    assert scenario_of(eval_id) is scenario
    assert parse_eval_id(eval_id) == eval_id


def test_ids_of_a_scenario_are_unique() -> None:
    assert len({eval_id_for(Scenario.FLAT, number) for number in range(100)}) == 100


def test_any_other_id_has_a_stable_layout() -> None:
    others = [str(uuid.UUID(int=number)) for number in range(len(LAYOUTS))]
    assert {scenario_of(eval_id) for eval_id in others} == set(LAYOUTS)
    assert [scenario_of(eval_id) for eval_id in others] == [scenario_of(eval_id) for eval_id in others]


@pytest.mark.parametrize("eval_id", ["d0c5ffff-0000-4000-8000-000000000000", "d0c50501-1111-4000-8000-000000000000"])
def test_an_id_that_resembles_the_mark_has_no_scenario(eval_id: str) -> None:
    assert scenario_of(eval_id) in LAYOUTS
