"""Each command's output and exit code for a missing or damaged archive.

A damaged archive is not an internal error: commands print a sentence or a row, and never a traceback.
"""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner

from scripts.cli import main
from tasks.storage.bucket import Bucket
from tasks.storage.open_bucket import open_bucket
from tests.archives import PREFIX, ArchiveEditor, BucketEditor, FolderEditor, eval_ids, fill
from tests.conftest import S3
from worker.clients.archive import open_archive
from worker.config.settings import Settings

MINE, UNKNOWN = eval_ids(2)
MANIFEST = f"sandbox/{MINE}/manifest.json"
COMMANDS = ("audit", "verify", "export", "erase")


@dataclass(frozen=True)
class CommandResult:
    """The result of a command.

    Attributes:
        code: its exit code.
        text: everything that it printed.
    """

    code: int
    text: str


@dataclass(frozen=True)
class DamageableArchive:
    """Runs commands on an archive with one evaluation, which a test can tamper with."""

    editor: ArchiveEditor
    folder: Path

    def run(self, command: str, eval_id: str = MINE) -> CommandResult:
        """Run a command on one evaluation."""
        (self.folder / "ids.txt").write_text(eval_id)
        arguments = {
            "audit": ["audit", "ids.txt", "--json"],
            "verify": ["verify", "ids.txt", "--json", "--grace", "0"],
            "export": ["export", eval_id, "--to", f"out-{command}"],
            "erase": ["erase", eval_id, "--reason", "request 4711", "--yes"],
        }
        result = CliRunner().invoke(main, arguments[command])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return CommandResult(result.exit_code, result.stdout + result.stderr)


async def _fill(bucket: Bucket) -> None:
    await fill(bucket, [MINE], size=100)


@pytest.fixture(params=["folder", "s3"])
def damageable(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DamageableArchive:
    if request.param == "folder":
        url, editor = (tmp_path / "archive").as_uri(), FolderEditor(tmp_path / "archive")
    else:
        s3: S3 = request.getfixturevalue("s3")
        url, editor = f"s3://{s3.bucket}/{PREFIX}", BucketEditor(s3)
        monkeypatch.setenv("DOCV_S3_ENDPOINT", s3.endpoint)
    monkeypatch.setenv("DOCV_ARCHIVE_URL", url)
    monkeypatch.setenv("DOCV_LEASE_SECONDS", "2")
    monkeypatch.setenv("DOCV_PUT_SECONDS", "1")
    asyncio.run(_fill(open_bucket(open_archive(Settings()))))
    return DamageableArchive(editor, tmp_path)


def _changed(**facts: object) -> Callable[[bytes], bytes]:
    return lambda data: json.dumps(json.loads(data) | facts).encode()


def _move_document(data: bytes) -> bytes:
    manifest = json.loads(data)
    manifest["documents"][0]["key"] = f"sandbox/{UNKNOWN}/selfie/{'0' * 64}.jpg"
    return json.dumps(manifest).encode()


DAMAGES = {
    "not JSON": lambda _: b"{",
    "empty": lambda _: b"",
    "not an object": lambda _: b"[1]",
    "not text": lambda _: b"\xff\xfe\x00",
    "newer": _changed(schema=2),
    "of another evaluation": _changed(eval_id=UNKNOWN),
    "elsewhere": _move_document,
}
MISSING, DAMAGED = '"outcome":"missing"', "manifest_damaged"
OUTPUTS = {
    # The output of audit, verify and export; each with exit code 1.
    "not JSON": (MISSING, DAMAGED, "is not valid JSON"),
    "empty": (MISSING, DAMAGED, "is not valid JSON"),
    "not an object": (MISSING, DAMAGED, "does not match its schema"),
    "not text": (MISSING, DAMAGED, "is not valid JSON"),
    "newer": (MISSING, "use a newer docv-archive", "use a newer docv-archive"),
    "of another evaluation": (MISSING, "manifest_foreign", "belongs to another evaluation"),
    # The audit trusts a manifest about its documents; verify reads them.
    "elsewhere": ('"outcome":"archived"', "key_outside", "not this evaluation's; it was not followed"),
}


@pytest.mark.parametrize(
    ("damageable", "damage"),
    [("folder", each) for each in DAMAGES] + [("s3", "newer"), ("s3", "elsewhere")],
    indirect=["damageable"],
)
def test_each_command_reports_a_damaged_manifest_and_erase_removes_it(
    damageable: DamageableArchive, damage: str
) -> None:
    damageable.editor.put(MANIFEST, DAMAGES[damage](damageable.editor.get(MANIFEST)))
    for command, words in zip(COMMANDS, OUTPUTS[damage], strict=False):
        result = damageable.run(command)
        assert (result.code, words in result.text) == (int(words != '"outcome":"archived"'), True), result
    erased = damageable.run("erase")
    assert (erased.code, "erased" in erased.text) == (0, True), erased
    assert [key for key in damageable.editor.listed() if MINE in key and "receipts" not in key] == [MANIFEST]
    again = damageable.run("audit")
    assert (again.code, '"cause":"erased"' in again.text) == (0, True), again


def test_each_command_reports_an_evaluation_that_is_not_archived(damageable: DamageableArchive) -> None:
    for command, code, words in (
        ("audit", 1, MISSING),
        ("verify", 1, "manifest_missing"),
        ("export", 1, "it is not in the archive"),
        ("erase", 1, "not erased: nothing of it is in the archive"),
    ):
        result = damageable.run(command, UNKNOWN)
        assert (result.code, words in result.text) == (code, True), result
    assert not list(damageable.folder.glob("out-*"))


@pytest.mark.parametrize("damageable", ["folder"], indirect=True)
@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_refuses_an_invalid_id(damageable: DamageableArchive, command: str) -> None:
    result = damageable.run(command, "../etc/passwd")
    assert (result.code, "passwd" in result.text) == (2, True), result
    assert "Traceback" not in result.text


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_reports_a_bucket_that_does_not_exist(
    s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("DOCV_ARCHIVE_URL", "s3://no-such-bucket/kept")
    monkeypatch.setenv("DOCV_S3_ENDPOINT", s3.endpoint)
    result = DamageableArchive(BucketEditor(s3), tmp_path).run(command)
    assert (result.code, "there is no such bucket" in result.text) == (3, True), result
