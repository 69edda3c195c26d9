"""The demo shows a newcomer nothing untrue."""

import json
from pathlib import Path

from jsonschema import Draft202012Validator

from tasks.model.outcome import Outcome
from tasks.storage.manifest import schema
from tests.commands import Shell


async def test_the_demo_ends_with_every_kind_of_outcome_and_a_verified_archive(tmp_path: Path) -> None:
    finished = await Shell(tmp_path).run("demo", "--count", "100", "--json", "--picture", "demo.svg")
    assert finished.code == 0, finished.err
    summary = json.loads(finished.out)
    assert set(summary["outcomes"]) == {outcome.value for outcome in Outcome}
    assert {outcome for outcome, count in summary["outcomes"].items() if not count} == {"cancelled", "withheld"}
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


async def test_a_folder_of_something_else_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("mine")
    finished = await Shell(tmp_path).run("demo", "--to", "precious")
    assert finished.code == 2
    assert "already exists and is not from a demo" in finished.err
    assert (tmp_path / "precious" / "file").read_text() == "mine"


async def test_the_demo_needs_no_proxy(tmp_path: Path) -> None:
    proxies = {"DOCV_PROXY": "http://127.0.0.1:1", "HTTP_PROXY": "http://proxy.invalid"}
    finished = await Shell(tmp_path, proxies).run("demo", "--count", "100", "--json")
    assert finished.code == 0, finished.err
