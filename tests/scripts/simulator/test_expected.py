import io
import zipfile
from collections import Counter

import aiohttp
import pytest

from scripts.simulator.expected import demo_ids, expected_outcome
from scripts.simulator.scenarios import Scenario, eval_id_for, scenario_of
from tasks.model.outcome import Outcome
from tests.scripts.simulator.conftest import Client

ATTEMPTS = 3


async def archive(client: Client, eval_id: str) -> Outcome:
    """Archive like a careful client that does not know the scenarios."""
    outcome = Outcome.FAILED
    for _ in range(ATTEMPTS):
        outcome = await attempt(client, eval_id)
        if outcome not in {Outcome.FAILED, Outcome.UNREADABLE}:
            break
    return outcome


async def attempt(client: Client, eval_id: str) -> Outcome:
    try:
        response = await client.get_documents(eval_id)
    except aiohttp.ClientError:
        return Outcome.FAILED
    match response.status:
        case 404:
            return Outcome.NOT_FOUND if b"Evaluation" in response.body else Outcome.FAILED
        case 400:
            message = response.body.lower()
            has_no_documents = b"no documents found" in message or b"images not available" in message
            return Outcome.NO_DOCUMENTS if has_no_documents else Outcome.REJECTED
        case 200 if response.headers.get("Content-Type") == "application/zip" and response.named_for == eval_id:
            return Outcome.ARCHIVED if is_sound(response.body) else Outcome.UNREADABLE
        case _:
            return Outcome.FAILED


def is_sound(bundle: bytes) -> bool:
    try:
        with zipfile.ZipFile(io.BytesIO(bundle)) as opened:
            members = opened.infolist()
            unpacked = [len(opened.read(member)) for member in members]
    except (zipfile.BadZipFile, UserWarning):  # Python 3.14 warns about overlapping members and reads on
        return False
    return bool(members) and unpacked == [member.file_size for member in members]


@pytest.mark.parametrize("scenario", Scenario)
async def test_a_careful_client_reaches_the_expected_outcome(client: Client, scenario: Scenario) -> None:
    assert await archive(client, eval_id_for(scenario, 1)) == expected_outcome(scenario)


def test_demo_ids_cover_every_outcome_and_are_mostly_archived() -> None:
    outcomes = Counter(expected_outcome(scenario_of(eval_id)) for eval_id in demo_ids(300))
    assert set(outcomes) == set(Outcome) - {Outcome.UNCHANGED, Outcome.WITHHELD, Outcome.CANCELLED}
    assert outcomes[Outcome.ARCHIVED] > 200


def test_demo_ids_are_unique_and_a_shorter_list_is_a_prefix() -> None:
    assert len(set(demo_ids(1000))) == 1000
    assert demo_ids(1000)[:50] == demo_ids(50)
    assert demo_ids(0) == []
