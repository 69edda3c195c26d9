"""What each command says of an archive that is not as it should be, or not there, and with which exit code.

Nothing of it is an error of ours: a sentence, a row, an exit code, and never a traceback.
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
from tests.archives import PREFIX, BucketHand, FolderHand, Hand, eval_ids, fill
from tests.conftest import S3
from worker.clients.archive import open_archive
from worker.config.settings import Settings

MINE, UNKNOWN = eval_ids(2)
MANIFEST = f"sandbox/{MINE}/manifest.json"
COMMANDS = ("audit", "verify", "export", "erase")


@dataclass(frozen=True)
class Said:
    """What a command said.

    Attributes:
        code: its exit code.
        text: all that it printed.
    """

    code: int
    text: str


@dataclass(frozen=True)
class Desk:
    """Where commands are given about an archive with one evaluation, by somebody who can tamper with it."""

    hand: Hand
    folder: Path

    def give(self, command: str, eval_id: str = MINE) -> Said:
        """Give a command about one evaluation."""
        (self.folder / "ids.txt").write_text(eval_id)
        arguments = {
            "audit": ["audit", "ids.txt", "--json"],
            "verify": ["verify", "ids.txt", "--json", "--grace", "0"],
            "export": ["export", eval_id, "--to", f"out-{command}"],
            "erase": ["erase", eval_id, "--reason", "request 4711", "--yes"],
        }
        result = CliRunner().invoke(main, arguments[command])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return Said(result.exit_code, result.stdout + result.stderr)


async def _fill(bucket: Bucket) -> None:
    await fill(bucket, [MINE], size=100)


@pytest.fixture(params=["folder", "s3"])
def desk(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    if request.param == "folder":
        url, hand = (tmp_path / "archive").as_uri(), FolderHand(tmp_path / "archive")
    else:
        s3: S3 = request.getfixturevalue("s3")
        url, hand = f"s3://{s3.bucket}/{PREFIX}", BucketHand(s3)
        monkeypatch.setenv("DOCV_S3_ENDPOINT", s3.endpoint)
    monkeypatch.setenv("DOCV_ARCHIVE_URL", url)
    asyncio.run(_fill(open_bucket(open_archive(Settings()))))
    return Desk(hand, tmp_path)


def _changed(**facts: object) -> Callable[[bytes], bytes]:
    return lambda data: json.dumps(json.loads(data) | facts).encode()


def _elsewhere(data: bytes) -> bytes:
    manifest = json.loads(data)
    manifest["documents"][0]["key"] = f"sandbox/{UNKNOWN}/selfie/{'0' * 64}.jpg"
    return json.dumps(manifest).encode()


SPOILT = {
    "no JSON": lambda _: b"{",
    "empty": lambda _: b"",
    "no object": lambda _: b"[1]",
    "no text": lambda _: b"\xff\xfe\x00",
    "newer": _changed(schema=2),
    "another's": _changed(eval_id=UNKNOWN),
    "elsewhere": _elsewhere,
}
MISSING, DAMAGED = '"outcome":"missing"', "manifest_damaged"
SAID = {
    # What audit, verify and export say; each with exit code 1.
    "no JSON": (MISSING, DAMAGED, "is no JSON"),
    "empty": (MISSING, DAMAGED, "is no JSON"),
    "no object": (MISSING, DAMAGED, "does not fit its schema"),
    "no text": (MISSING, DAMAGED, "is no JSON"),
    "newer": (MISSING, "use a newer docv-archive", "use a newer docv-archive"),
    "another's": (MISSING, "manifest_foreign", "speaks of another evaluation"),
    # The audit believes a manifest's word about documents: to look at them is for verify.
    "elsewhere": ('"outcome":"archived"', "key_outside", "not this evaluation's; it was not followed"),
}


@pytest.mark.parametrize(
    ("desk", "spoilt"),
    [("folder", each) for each in SPOILT] + [("s3", "newer"), ("s3", "elsewhere")],
    indirect=["desk"],
)
def test_a_manifest_that_cannot_be_relied_upon_is_told_by_each_and_erased_all_the_same(desk: Desk, spoilt: str) -> None:
    desk.hand.put(MANIFEST, SPOILT[spoilt](desk.hand.get(MANIFEST)))
    for command, words in zip(COMMANDS, SAID[spoilt], strict=False):
        said = desk.give(command)
        assert (said.code, words in said.text) == (int(words != '"outcome":"archived"'), True), said
    erased = desk.give("erase")
    assert (erased.code, "erased" in erased.text) == (0, True), erased
    assert [key for key in desk.hand.listed() if MINE in key and "receipts" not in key] == [MANIFEST]
    again = desk.give("audit")
    assert (again.code, '"cause":"erased"' in again.text) == (0, True), again


def test_an_evaluation_that_is_not_there_is_told_by_each(desk: Desk) -> None:
    for command, code, words in (
        ("audit", 1, MISSING),
        ("verify", 1, "manifest_missing"),
        ("export", 1, "it is not in the archive"),
        ("erase", 0, "erased 0 objects"),
    ):
        said = desk.give(command, UNKNOWN)
        assert (said.code, words in said.text) == (code, True), said
    assert not list(desk.folder.glob("out-*"))


@pytest.mark.parametrize("desk", ["folder"], indirect=True)
@pytest.mark.parametrize("command", COMMANDS)
def test_what_is_no_id_is_bad_input(desk: Desk, command: str) -> None:
    said = desk.give(command, "../etc/passwd")
    assert (said.code, "passwd" in said.text) == (2, True), said
    assert "Traceback" not in said.text


@pytest.mark.parametrize("command", COMMANDS)
def test_a_bucket_that_is_not_there_cannot_be_reached(
    s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("DOCV_ARCHIVE_URL", "s3://nobody-made-it/kept")
    monkeypatch.setenv("DOCV_S3_ENDPOINT", s3.endpoint)
    said = Desk(BucketHand(s3), tmp_path).give(command)
    assert (said.code, "there is no such bucket" in said.text) == (3, True), said
