"""`legal-hold show` prints one matter, its additions and its evaluations."""

import json
from pathlib import Path

import pytest

from tests.scripts.legal_hold.conftest import HoldArchive

M = "acme-v-bolt"


@pytest.fixture
def ids(folder: HoldArchive, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Two evaluations under a matter; one of them was added twice, as after an interruption."""
    ids = [folder.fill() for _ in range(2)]
    folder.run_ok("legal-hold", "create", M, "--reason", "case 17")
    folder.run_ok("legal-hold", "add", M, ids[0])
    (path,) = Path("archive/holds", M, "additions/sandbox").iterdir()
    path.with_name("20990101T000000.000000Z-0.json.gz").write_bytes(path.read_bytes())
    monkeypatch.setenv("DOCV_ACTOR", "another")
    folder.run_ok("legal-hold", "add", M, ids[1])
    return ids


def test_show_prints_the_user_and_the_size_of_each_addition(folder: HoldArchive, ids: list[str]) -> None:
    facts = json.loads(folder.run_ok("legal-hold", "show", M, "--json").stdout)
    assert (facts["matter"], facts["state"], facts["reason"], facts["created_by"]) == (M, "open", "case 17", "operator")
    assert facts["evaluations"] == {"sandbox": len(ids)}
    added = [(each["added_by"], each["evaluations"], each["environment"]) for each in facts["additions"]]
    assert added == [("operator", 1, "sandbox"), ("another", 1, "sandbox"), ("operator", 1, "sandbox")]

    text = folder.run_ok("legal-hold", "show", M).stdout
    assert "state           open\n" in text
    assert "evaluations     2 in sandbox\n" in text
    assert "by another: 1 evaluation in sandbox\n" in text
    assert "released" not in text


def test_show_ids_prints_each_evaluation_once_as_a_list_for_other_commands(folder: HoldArchive, ids: list[str]) -> None:
    listed = folder.run_ok("legal-hold", "show", M, "--ids").stdout
    assert listed.splitlines() == ["eval_id,environment", *(f"{eval_id},sandbox" for eval_id in ids)]
    assert "2 unreadable" in folder.run("audit", "-", given=listed).stderr
    as_json = folder.run_ok("legal-hold", "show", M, "--ids", "--json").stdout.splitlines()
    assert [json.loads(line) for line in as_json] == [{"eval_id": each, "environment": "sandbox"} for each in ids]


def test_a_matter_that_does_not_exist_is_a_usage_error(folder: HoldArchive) -> None:
    result = folder.run("legal-hold", "show", M)
    assert (result.exit_code, f"matter {M} does not exist" in result.stderr) == (2, True)
