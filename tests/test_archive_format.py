"""docs/archive-format.md is correct: its fields, its example, and every command that it shows."""

import base64
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidTag
from jsonschema import Draft202012Validator

from tasks.bundle.documents import DocumentSource, Kind
from tasks.model.evaluation import Evaluation
from tasks.model.outcome import NoDocumentsReason, SourceStatus
from tasks.storage.encryption import Keyring, seal
from tasks.storage.local_bucket import LocalBucket
from tasks.storage.manifest import read_manifest, schema
from tasks.storage.run_list import RunList, RunSource, store_run_list
from tests.archived_bundles import archive_bundle, archive_tombstone
from tests.disposals import dispose, list_as_disposed
from tests.zips import Raw, forged, zip_of

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "archive-format.md").read_text("utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
SHELL = [code for language, code in BLOCKS if language == "bash"]
EVALUATION = Evaluation("0b54a4d4-6e5b-4f3c-9d2a-7c1f0e8b9a10", "production")
OTHER = Evaluation("0b54a4d4-6e5b-4f3c-9d2a-7c1f0e8b9a11", "production")
MISSING = "0b54a4d4-6e5b-4f3c-9d2a-7c1f0e8b9a12"
DISPOSED = Evaluation("0b54a4d4-6e5b-4f3c-9d2a-7c1f0e8b9a13", "production")

with_tools = pytest.mark.needs("jq", "sha256sum")


def block(language: str, word: str) -> str:
    """Return the one block that contains a word."""
    (found,) = (code for each, code in BLOCKS if each == language and word in code)
    return found


def documented_fields(heading: str) -> list[str]:
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
    """Make a folder with an evaluation of three revisions, a bundle in quarantine, a disposal, and a run."""
    root = tmp_path / "archive"
    bucket = LocalBucket(root)
    for number in range(3):
        await archive_bundle(bucket, zip_of({"selfie.txt": b"%d" % number, "a b.txt": b"same"}), EVALUATION)
    await archive_tombstone(bucket, OTHER)
    await archive_bundle(
        bucket, forged(Raw(name=b"a"), Raw(name=b"b", content=b"x", central={"crc": 1}, local={"crc": 1})), OTHER
    )
    await archive_bundle(bucket, zip_of({"selfie.txt": b"due", "a.txt": b"kept"}), DISPOSED)
    await dispose(bucket, DISPOSED, lambda document: document.name == "selfie.txt")
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


def damage(archive: Path, pattern: str) -> None:
    path = min(archive.glob(pattern))
    path.write_bytes(path.read_bytes() + b" ")


def test_the_page_documents_exactly_the_fields_of_the_manifest() -> None:
    assert documented_fields("field") == sorted(fields_of(schema(), schema()["$defs"]))


def test_the_page_documents_exactly_the_fields_of_a_run_list() -> None:
    facts = RunList.model_json_schema(by_alias=True, mode="serialization")
    assert documented_fields("field of `run.json`") == sorted(fields_of(facts, facts["$defs"]))


def test_the_example_is_a_manifest_with_every_field() -> None:
    example = json.loads(block("json", "eval_id"))
    Draft202012Validator(schema()).validate(example)
    # Fields that are absent when empty are absent here.
    absent = {"disposed", "erased", "erased_kinds", "matter_kinds", "matters", "restricted", "tags", "unconfirmed"}
    assert set(example) | absent == set(schema()["properties"])
    assert set(example["documents"][0]) | {"lenient", "sealed_with", "name_encoding", "name_conflict"} == set(
        schema()["$defs"]["DocumentRecord"]["properties"]
    )


def test_the_page_documents_every_value_of_an_enumeration() -> None:
    outcomes = documented_fields("outcome")
    assert outcomes == sorted(schema()["properties"]["outcome"]["enum"])
    for word in (*Kind, *DocumentSource, *NoDocumentsReason, *SourceStatus):
        assert f"`{word.value}`" in PAGE


@with_tools
@pytest.mark.parametrize("script", SHELL, ids=range(len(SHELL)))
def test_the_commands_on_the_page_find_nothing_in_an_intact_archive(archive: Path, script: str) -> None:
    finished = bash(archive, script)
    assert finished.stderr == ""
    assert "FAILED" not in finished.stdout


@with_tools
def test_the_commands_on_the_page_show_each_document_and_each_revision(archive: Path) -> None:
    documents = bash(archive, block("bash", "json.tool")).stdout
    assert documents.count(": OK\n") == 4
    assert '"eval_id": "0b54a4d4' in documents
    chain = bash(archive, block("bash", "while previous")).stdout.splitlines()
    assert chain == [f"production/{EVALUATION.eval_id}/revisions/{number}.json: OK" for number in (2, 1)]
    assert bash(archive, block("bash", "gzip -dc")).stdout.split() == [MISSING]


@with_tools
@pytest.mark.parametrize(
    ("word", "pattern"),
    [
        ("json.tool", f"production/{EVALUATION.eval_id}/other/*"),
        ("{} + | sha256sum", f"production/{EVALUATION.eval_id}/other/*"),
        ("while previous", f"production/{EVALUATION.eval_id}/revisions/1.json"),
        ("gzip -dc", "runs/production/2026-q3/*.gz"),
    ],
)
def test_the_commands_on_the_page_find_each_change(archive: Path, word: str, pattern: str) -> None:
    damage(archive, pattern)
    assert "FAILED" in bash(archive, block("bash", word)).stdout


@pytest.mark.parametrize(
    "pattern",
    [None, f"production/{EVALUATION.eval_id}/*/*.txt", "production/*/revisions/1.json", "quarantine/*/*/*.zip"],
)
def test_the_python_program_on_the_page_finds_exactly_the_changes(archive: Path, pattern: str | None) -> None:
    if pattern:
        damage(archive, pattern)
    finished = run(archive, sys.executable, "-W", "error", "-c", block("python", "quarantine"))
    assert (finished.returncode, finished.stderr) == (0, "")
    assert finished.stdout.count("wrong or missing") == (1 if pattern else 0)


@with_tools
async def test_the_commands_on_the_page_find_a_disposed_document_that_still_exists(archive: Path) -> None:
    assert bash(archive, block("bash", ".disposed")).stdout == ""
    (key,) = await list_as_disposed(LocalBucket(archive), DISPOSED)

    assert bash(archive, block("bash", ".disposed")).stdout == f"{key}\n"
    assert run(archive, sys.executable, "-c", block("python", "quarantine")).stdout == f"still there: {key}\n"


async def test_an_odd_name_can_be_converted_back_to_its_bytes(tmp_path: Path) -> None:
    odd = b"\xff\xfea/\xc3\xa4\xee\xbe\x80.jpg"
    bucket = LocalBucket(tmp_path / "archive")
    members = [Raw(name=odd, flags=1 << 11), Raw(name=odd), Raw(name="ä\uef80".encode()), Raw(name=b"a")]
    await archive_bundle(bucket, forged(*members), EVALUATION)
    committed = await read_manifest(bucket, EVALUATION)
    assert committed
    documents = committed.manifest.documents
    assert [document.name_encoding for document in documents] == ["utf-8", "cp437", "assumed-utf-8", None]
    namespace: dict[str, Any] = {}
    exec(block("python", "bytes_of"), namespace)  # noqa: S102  # our own code
    found = [namespace["bytes_of"](document.name, document.name_encoding) for document in documents]
    assert found == [member.name for member in members]


SEALED_KEY = f"production/{EVALUATION.eval_id}/selfie/{'a' * 64}.jpg"
KEY_TEXTS = [f"{key_id}:{base64.b64encode(byte * 32).decode()}" for key_id, byte in (("new", b"n"), ("old", b"o"))]


def sealed_with_old_key(document: bytes) -> bytes:
    keyring = Keyring.of(KEY_TEXTS)
    assert keyring
    return b"".join(seal(document, SEALED_KEY, replace(keyring, current="old")))


def open_sealed(data: bytes, key: str = SEALED_KEY) -> bytes:
    namespace: dict[str, Any] = {"__name__": "shown"}
    exec(block("python", "open_sealed"), namespace)  # noqa: S102  # our own code
    opened: bytes = namespace["open_sealed"](data, key, {"new": b"n" * 32, "old": b"o" * 32})
    return opened


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 3 << 20])
def test_the_program_on_the_page_opens_a_sealed_document(size: int) -> None:
    document = bytes(range(256)) * (size // 256) + bytes(size % 256)
    assert open_sealed(sealed_with_old_key(document)) == document


@pytest.mark.parametrize("length", [14 + 3 + 60, 14 + 3 + 60 + (1 << 20) + 16, -1])
def test_the_program_on_the_page_refuses_a_truncated_object(length: int) -> None:
    with pytest.raises(InvalidTag):
        open_sealed(sealed_with_old_key(bytes(2 << 20))[:length])


def test_the_program_on_the_page_refuses_a_moved_object() -> None:
    with pytest.raises(InvalidTag):
        open_sealed(sealed_with_old_key(b"selfie"), SEALED_KEY.replace("selfie", "other"))


def test_the_program_on_the_page_writes_the_document_that_its_argument_names(tmp_path: Path) -> None:
    (tmp_path / "open_sealed.py").write_text(block("python", "open_sealed"), "utf-8")
    (tmp_path / SEALED_KEY).parent.mkdir(parents=True)
    (tmp_path / SEALED_KEY).write_bytes(sealed_with_old_key(b"selfie"))
    (typed,) = re.findall(r"(?m)^python3 (open_sealed\.py) \S+ > selfie\.jpg$", PAGE)
    finished = subprocess.run(
        [sys.executable, typed, SEALED_KEY],
        cwd=tmp_path,
        env={"DOCV_ENCRYPTION_KEYS": ", ".join(KEY_TEXTS)},
        capture_output=True,
        check=False,
    )
    assert (finished.returncode, finished.stdout, finished.stderr) == (0, b"selfie", b"")
