"""Legal hold is set on everything of an evaluation, and only where there is such a thing."""

import json
from pathlib import Path

from tests.commands import Shell
from tests.conftest import S3

MINE, OTHER = "0b54a4d4-6e5b-4f3c-9d2a-7c1f0e8b9a10", "0b54a4d4-6e5b-4f3c-9d2a-7c1f0e8b9a11"
KEYS = (f"sandbox/{MINE}/manifest.json", f"sandbox/{MINE}/revisions/1.json", f"quarantine/sandbox/{MINE}/0.zip")


def _shell(s3: S3, folder: Path) -> Shell:
    return Shell(folder, {"DOCV_ARCHIVE_URL": f"s3://{s3.bucket}/kept", "DOCV_S3_ENDPOINT": s3.endpoint})


async def test_everything_of_an_evaluation_is_held_and_let_go(s3: S3, tmp_path: Path) -> None:
    s3.client.put_bucket_versioning(Bucket=s3.bucket, VersioningConfiguration={"Status": "Enabled"})
    lock = {"ObjectLockEnabled": "Enabled"}
    s3.client.put_object_lock_configuration(Bucket=s3.bucket, ObjectLockConfiguration=lock)
    for key in KEYS:
        s3.client.put_object(Bucket=s3.bucket, Key=f"kept/{key}", Body=b"some")
    shell = _shell(s3, tmp_path)
    for option, status in (("--on", "ON"), ("--off", "OFF")):
        finished = await shell.run("legal-hold", MINE, option, "--json")
        assert (finished.code, finished.err) == (0, "")
        assert json.loads(finished.out) == {"eval_id": MINE, "legal_hold": status == "ON", "objects": 3}
        for key in KEYS:
            held = s3.client.get_object_legal_hold(Bucket=s3.bucket, Key=f"kept/{key}")
            assert held["LegalHold"]["Status"] == status
    assert (await shell.run("legal-hold", OTHER, "--on")).code == 1


async def test_a_bucket_without_object_lock_is_a_sentence(s3: S3, tmp_path: Path) -> None:
    finished = await _shell(s3, tmp_path).run("legal-hold", MINE, "--on")
    assert finished.code == 2
    assert "has no Object Lock" in finished.err
    assert len(finished.err.splitlines()) == 1


async def test_a_folder_knows_no_legal_hold(tmp_path: Path) -> None:
    finished = await Shell(tmp_path).run("legal-hold", MINE, "--on")
    assert finished.code == 2
    assert "a folder knows no legal hold" in finished.err
