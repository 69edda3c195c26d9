"""The command asks, erases, and says what came of each; what was erased stays away until a person says otherwise."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from scripts.simulator.options import SimulatorOptions
from scripts.simulator.scenarios import Scenario, eval_id_for
from scripts.simulator.server import Simulator, start_simulator
from tests.commands import KEY, Shell

MINE = eval_id_for(Scenario.DOCUMENTED, 7)


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with await start_simulator(SimulatorOptions(api_key=KEY, image_bytes=2_000)) as simulator:
        yield simulator


@pytest.fixture
def shell(simulator: Simulator, tmp_path: Path) -> Shell:
    return Shell(tmp_path, {"DOCV_API_KEY": KEY, "DOCV_RISKOS_URL": simulator.url, "DOCV_RATE": "100"})


async def test_what_was_erased_is_not_fetched_again_unless_a_person_says_so(
    shell: Shell, simulator: Simulator, tmp_path: Path
) -> None:
    assert (await shell.run("run", MINE)).code == 0
    requests = simulator.stats().requests
    finished = await shell.run("erase", MINE, "--reason", "request 4711", "--by", "operator", "--yes", "--json")
    assert finished.code == 0, finished.err
    facts = json.loads(finished.out)
    assert (facts["state"], facts["objects"] > 1) == ("erased", True)
    receipt = json.loads((tmp_path / "archive" / facts["receipt"]).read_text())
    assert (receipt["reason"], receipt["by"]) == ("request 4711", "operator")
    assert receipt["completed_at"]

    (tmp_path / "ids.txt").write_text(f"{MINE}\n")
    backfill = await shell.run("backfill", "ids.txt", "--run", "q3", "--refresh", "--json")
    assert (json.loads(backfill.out)["unchanged_outcomes"]["erased"], backfill.code) == (1, 0)
    assert simulator.stats().requests == requests

    back = await shell.run("backfill", "ids.txt", "--run", "q4", "--even-if-erased", "--json")
    assert json.loads(back.out)["outcomes"]["archived"] == 1
    assert simulator.stats().requests > requests


@pytest.mark.parametrize("given", ["", "n\n", "\n"], ids=["nobody is there", "no", "nothing is said"])
async def test_nothing_is_erased_unless_a_person_says_yes(shell: Shell, tmp_path: Path, given: str) -> None:
    finished = await shell.run("erase", MINE, "--reason", "request 4711", given=given)
    assert (finished.code, finished.out) == (1, "")
    assert "Go on?" in finished.err
    assert not (tmp_path / "archive").exists()


@pytest.mark.parametrize("reason", ["", " ", "x" * 501, "two\nlines"])
async def test_a_reason_is_one_line(shell: Shell, reason: str) -> None:
    finished = await shell.run("erase", MINE, "--yes", "--reason", reason)
    assert finished.code == 2
    assert "--reason" in finished.err


async def test_a_dry_run_asks_nothing_and_changes_nothing(shell: Shell, tmp_path: Path) -> None:
    finished = await shell.run("erase", MINE, "--reason", "request 4711", "--dry-run")
    assert finished.code == 0
    assert finished.out == f"{MINE}: would erase 0 objects, 0 versions, 0 bytes\n"
    assert "no Redis is named" in finished.err
    assert not (tmp_path / "archive" / "receipts").exists()
