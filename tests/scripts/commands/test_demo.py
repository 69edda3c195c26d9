"""The demo shows true results, ignores proxies, and writes only to its own folder."""

import json
from pathlib import Path

from jsonschema import Draft202012Validator

from tasks.model.outcome import Outcome
from tasks.storage.manifest import schema
from tests.commands import Shell


async def test_the_demo_ends_with_all_outcomes_but_cancelled_and_withheld_and_valid_manifests(tmp_path: Path) -> None:
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


async def test_the_demo_does_not_touch_a_folder_that_is_not_from_a_demo(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("mine")
    finished = await Shell(tmp_path).run("demo", "--to", "precious")
    assert finished.code == 2
    assert "already exists and is not from a demo" in finished.err
    assert (tmp_path / "precious" / "file").read_text() == "mine"


async def test_the_demo_ignores_proxies(tmp_path: Path) -> None:
    proxies = {"DOCV_PROXY": "http://127.0.0.1:1", "HTTP_PROXY": "http://proxy.invalid"}
    finished = await Shell(tmp_path, proxies).run("demo", "--count", "100", "--json")
    assert finished.code == 0, finished.err
