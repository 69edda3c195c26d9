"""`doctor --keys` finds out from the objects, and not from manifests, which keys are needed."""

import base64
import json
from pathlib import Path

import pytest

from scripts.archive_access.open_bucket import open_archive_bucket
from scripts.doctor.finding import State
from scripts.doctor.keys import examine_keys, judge_key
from tasks.storage.bucket import ObjectAttributes
from tasks.storage.encrypted_bucket import EncryptedBucket
from tasks.storage.encryption import Keyring
from tests.commands import Shell
from tests.conftest import S3
from worker.config.settings import Settings, load_settings

EVAL_ID = "0b54a4d4-6e5b-4f3c-9d2a-7c1f0e8b9a10"
KEYS = {name: name.encode() * 16 for name in ("k1", "k2", "k3")}
LABELS = ObjectAttributes("application/pdf")


def format_keys(*names: str) -> str:
    return ",".join(f"{name}:{base64.b64encode(KEYS[name]).decode()}" for name in names)


async def fill(settings: Settings) -> None:
    """Store two objects sealed with k1, one of them in quarantine, one sealed with k2, and some without a seal."""
    async with open_archive_bucket(settings) as bucket:
        for key_id, key in (
            ("k1", f"sandbox/{EVAL_ID}/selfie/1.jpg"),
            ("k1", f"quarantine/sandbox/{EVAL_ID}/1.zip"),
            ("k2", f"production/{EVAL_ID}/selfie/1.jpg"),
        ):
            await EncryptedBucket(bucket, Keyring(key_id, KEYS)).create(key, b"a document", LABELS)
        for key in ("selfie/2.jpg", "manifest.json", "revisions/1.json"):
            await bucket.create(f"sandbox/{EVAL_ID}/{key}", b"plain", LABELS)
        await bucket.create(f"receipts/sandbox/{EVAL_ID}/1.json", b"{}", LABELS)


@pytest.mark.parametrize("is_folder", [True, False])
async def test_each_key_is_reported_as_needed_or_not(tmp_path: Path, s3: S3, *, is_folder: bool) -> None:
    url = (tmp_path / "archive").as_uri() if is_folder else f"s3://{s3.bucket}/kyc"
    settings = load_settings(archive_url=url, s3_endpoint=s3.endpoint, encryption_keys=format_keys("k2", "k1", "k3"))
    await fill(settings)
    found = {each.subject: each for each in await examine_keys(settings)}
    assert [each.state for each in found.values()] == [State.FINE, State.FINE, State.FINE, State.WARNING]
    assert "needed: 2 objects" in found["key k1"].message
    assert "needed: 1 object is" in found["key k2"].message
    assert found["key k3"].message.startswith("not needed")
    assert found["keys"].message == "1 object is not sealed"


async def test_a_missing_key_is_wrong(tmp_path: Path) -> None:
    settings = {"DOCV_ARCHIVE_URL": (tmp_path / "archive").as_uri(), "DOCV_ENCRYPTION_KEYS": format_keys("k2")}
    await fill(Settings(archive_url=settings["DOCV_ARCHIVE_URL"]))
    shell = Shell(tmp_path, settings)
    finished = await shell.run("doctor", "--keys", "--json")
    findings = {each["what"]: each for each in json.loads(finished.out)["findings"]}
    assert (finished.code, findings["key k1"]["state"], findings["key k2"]["state"]) == (1, "wrong", "fine")
    assert (await shell.run("doctor", "--keys", "--evaluation", EVAL_ID)).code == 2


def test_the_first_key_is_needed_even_when_nothing_is_sealed() -> None:
    assert "needed: new objects" in judge_key("k1", 0, ["k1"]).message


async def test_no_key_is_needed_when_nothing_is_sealed_and_none_is_set(tmp_path: Path) -> None:
    (tmp_path / "archive").mkdir()
    (found,) = await examine_keys(Settings(archive_url=(tmp_path / "archive").as_uri()))
    assert (found.state, found.message) == (State.FINE, "none is set, and none of 0 objects is sealed")
