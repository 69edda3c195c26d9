"""The demo: what a newcomer sees first must be true."""

import json
from pathlib import Path

from jsonschema import Draft202012Validator

from tasks.model.outcome import Outcome
from tasks.storage.manifest import schema
from tests.commands import Shell


async def test_the_demo_ends_with_every_sort_of_outcome_and_a_true_archive(tmp_path: Path) -> None:
    finished = await Shell(tmp_path).run("demo", "--count", "100", "--json", "--picture", "demo.svg")
    assert finished.code == 0, finished.err
    summary = json.loads(finished.out)
    assert set(summary["outcomes"]) == {outcome.value for outcome in Outcome}
    assert {outcome for outcome, count in summary["outcomes"].items() if not count} == {"cancelled"}
    checker = Draft202012Validator(schema())
    manifests = list((tmp_path / "demo-archive" / "sandbox").glob("*/manifest.json"))
    assert len(manifests) == 100 - summary["outcomes"]["failed"]
    for path in manifests:
        checker.validate(json.loads(path.read_bytes()))
    picture = (tmp_path / "demo.svg").read_text()
    assert "unreadable" in picture
    assert "http" not in picture.replace("http://www.w3.org/2000/svg", "").replace("http://127.0.0.1", "").replace(
        "https://www.textualize.io", ""
    )


async def test_a_folder_that_is_not_a_demo_s_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("mine")
    finished = await Shell(tmp_path).run("demo", "--to", "precious")
    assert finished.code == 2
    assert "is there already and is not a demo's" in finished.err
    assert (tmp_path / "precious" / "file").read_text() == "mine"
