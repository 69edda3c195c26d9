"""What docs/archive-format.md tells a stranger is so: its fields, its example, and every command it shows."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from tasks.bundle.documents import DocumentSource, Kind
from tasks.model.evaluation import Evaluation
from tasks.model.outcome import NoDocumentsReason, SourceStatus
from tasks.storage.local_bucket import LocalBucket
from tasks.storage.manifest import read_manifest, schema
from tasks.storage.run_list import RunList, RunSource, store_run_list
from tests.archived_bundles import archive_bundle, archive_tombstone
from tests.zips import Raw, forged, zip_of

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "archive-format.md").read_text("utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
SHELL = [code for language, code in BLOCKS if language == "bash"]
EVALUATION = Evaluation("0b54a4d4-6e5b-4f3c-9d2a-7c1f0e8b9a10", "production")
OTHER = Evaluation("0b54a4d4-6e5b-4f3c-9d2a-7c1f0e8b9a11", "production")
MISSING = "0b54a4d4-6e5b-4f3c-9d2a-7c1f0e8b9a12"

with_tools = pytest.mark.needs("jq", "sha256sum")


def block(language: str, word: str) -> str:
    """The one block in which a word stands."""
    (found,) = (code for each, code in BLOCKS if each == language and word in code)
    return found


def fields_told(heading: str) -> list[str]:
    table = PAGE.split(f"| {heading} |")[1].split("\n\n")[0]
    firsts = re.findall(r"^\| (.*?) \|", table, re.MULTILINE)
    return sorted(name for first in firsts for name in re.findall(r"`(.+?)`", first))


def fields_of(part: dict[str, Any], parts: dict[str, Any], before: str = "") -> Iterator[str]:
    for name, facts in part["properties"].items():
        yield before + name
        for kind, mark in references(facts):
            if "properties" in parts[kind]:
                yield from fields_of(parts[kind], parts, f"{before}{name}{mark}.")


def references(facts: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if "$ref" in facts:
        yield facts["$ref"].rpartition("/")[2], ""
    for choice in facts.get("anyOf", ()):
        yield from references(choice)
    if "items" in facts:
        yield from ((kind, "[]") for kind, _ in references(facts["items"]))


@pytest.fixture
async def archive(tmp_path: Path) -> Path:
    """A folder with an evaluation of three revisions, a bundle in quarantine, and a run with an ID that is missing."""
    root = tmp_path / "archive"
    bucket = LocalBucket(root)
    for number in range(3):
        await archive_bundle(bucket, zip_of({"selfie.txt": b"%d" % number, "a b.txt": b"same"}), EVALUATION)
    await archive_tombstone(bucket, OTHER)
    await archive_bundle(
        bucket, forged(Raw(name=b"a"), Raw(name=b"b", content=b"x", central={"crc": 1}, local={"crc": 1})), OTHER
    )
    facts: Any = {"run": "2026-q3", "environment": "production", "account": "default", "refresh": False}
    source = RunSource(name="ids.txt", fingerprint="a" * 64, ids=3, repeated=0, bad=0)
    await store_run_list(bucket, (EVALUATION.eval_id, OTHER.eval_id, MISSING), source=source, **facts)
    return root


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=folder, env={"PATH": os.environ["PATH"]}, capture_output=True, text=True, check=False, timeout=60
    )


def bash(folder: Path, script: str) -> subprocess.CompletedProcess[str]:
    return run(folder, "bash", "-uo", "pipefail", "-c", script)


def damage(archive: Path, what: str) -> None:
    path = min(archive.glob(what))
    path.write_bytes(path.read_bytes() + b" ")


def test_every_field_of_the_manifest_is_told_and_no_other() -> None:
    assert fields_told("field") == sorted(fields_of(schema(), schema()["$defs"]))


def test_every_field_of_a_run_list_is_told_and_no_other() -> None:
    facts = RunList.model_json_schema(by_alias=True, mode="serialization")
    assert fields_told("field of `run.json`") == sorted(fields_of(facts, facts["$defs"]))


def test_the_example_is_a_manifest_with_every_field() -> None:
    example = json.loads(block("json", "eval_id"))
    Draft202012Validator(schema()).validate(example)
    # What is absent unless it has something to say is absent here.
    assert set(example) | {"erased"} == set(schema()["properties"])
    assert set(example["documents"][0]) | {"sealed_with"} == set(schema()["$defs"]["DocumentRecord"]["properties"])


def test_every_word_of_a_closed_set_is_told() -> None:
    outcomes = fields_told("outcome")
    assert outcomes == sorted(schema()["properties"]["outcome"]["enum"])
    for word in (*Kind, *DocumentSource, *NoDocumentsReason, *SourceStatus):
        assert f"`{word.value}`" in PAGE


@with_tools
@pytest.mark.parametrize("script", SHELL, ids=range(len(SHELL)))
def test_what_a_stranger_types_finds_a_sound_archive_sound(archive: Path, script: str) -> None:
    finished = bash(archive, script)
    assert finished.stderr == ""
    assert "FAILED" not in finished.stdout


@with_tools
def test_a_stranger_sees_each_document_and_each_revision(archive: Path) -> None:
    documents = bash(archive, block("bash", "json.tool")).stdout
    assert documents.count(": OK\n") == 4
    assert '"eval_id": "0b54a4d4' in documents
    chain = bash(archive, block("bash", "while previous")).stdout.splitlines()
    assert chain == [f"production/{EVALUATION.eval_id}/revisions/{number}.json: OK" for number in (2, 1)]
    assert bash(archive, block("bash", "gzip -dc")).stdout.split() == [MISSING]


@with_tools
@pytest.mark.parametrize(
    ("word", "what"),
    [
        ("json.tool", f"production/{EVALUATION.eval_id}/other/*"),
        ("find .", f"production/{EVALUATION.eval_id}/other/*"),
        ("while previous", f"production/{EVALUATION.eval_id}/revisions/1.json"),
        ("gzip -dc", "runs/production/2026-q3/*.gz"),
    ],
)
def test_what_a_stranger_types_finds_what_was_changed(archive: Path, word: str, what: str) -> None:
    damage(archive, what)
    assert "FAILED" in bash(archive, block("bash", word)).stdout


@pytest.mark.parametrize(
    "what", [None, f"production/{EVALUATION.eval_id}/*/*.txt", "production/*/revisions/1.json", "quarantine/*/*/*.zip"]
)
def test_python_alone_finds_what_was_changed_and_nothing_else(archive: Path, what: str | None) -> None:
    if what:
        damage(archive, what)
    finished = run(archive, sys.executable, "-W", "error", "-c", block("python", "quarantine"))
    assert (finished.returncode, finished.stderr) == (0, "")
    assert finished.stdout.count("wrong or missing") == (1 if what else 0)


async def test_an_odd_name_leads_back_to_its_bytes(tmp_path: Path) -> None:
    odd = b"\xff\xfea/\xc3\xa4\xee\xbe\x80.jpg"
    bucket = LocalBucket(tmp_path / "archive")
    await archive_bundle(bucket, forged(Raw(name=odd, flags=1 << 11)), EVALUATION)
    committed = await read_manifest(bucket, EVALUATION)
    assert committed
    known: dict[str, Any] = {}
    exec(block("python", "bytes_of"), known)  # noqa: S102  # it is ours
    assert known["bytes_of"](committed.manifest.documents[0].name) == odd
