"""Legal hold applies to every version of an evaluation's objects, and needs S3 Object Lock."""

import json
from pathlib import Path

from tests.commands import Shell
from tests.conftest import S3

MINE, OTHER = "0b54a4d4-6e5b-4f3c-9d2a-7c1f0e8b9a10", "0b54a4d4-6e5b-4f3c-9d2a-7c1f0e8b9a11"
KEYS = (f"sandbox/{MINE}/manifest.json", f"sandbox/{MINE}/revisions/1.json", f"quarantine/sandbox/{MINE}/0.zip")


def _shell(s3: S3, folder: Path) -> Shell:
    return Shell(folder, {"DOCV_ARCHIVE_URL": f"s3://{s3.bucket}/kept", "DOCV_S3_ENDPOINT": s3.endpoint})


async def test_legal_hold_is_set_and_ended_for_all_objects(s3: S3, tmp_path: Path) -> None:
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


async def test_legal_hold_includes_noncurrent_versions(s3: S3, tmp_path: Path) -> None:
    s3.client.put_bucket_versioning(Bucket=s3.bucket, VersioningConfiguration={"Status": "Enabled"})
    lock = {"ObjectLockEnabled": "Enabled"}
    s3.client.put_object_lock_configuration(Bucket=s3.bucket, ObjectLockConfiguration=lock)
    for key in (KEYS[0], *KEYS):
        s3.client.put_object(Bucket=s3.bucket, Key=f"kept/{key}", Body=b"some")
    for key in KEYS:
        s3.client.delete_object(Bucket=s3.bucket, Key=f"kept/{key}")
    finished = await _shell(s3, tmp_path).run("legal-hold", MINE, "--on", "--json")
    assert (finished.code, json.loads(finished.out)["objects"]) == (0, 3)
    versions = s3.client.list_object_versions(Bucket=s3.bucket, Prefix="kept/")["Versions"]
    assert len(versions) == 4
    for each in versions:
        held = s3.client.get_object_legal_hold(Bucket=s3.bucket, Key=each["Key"], VersionId=each["VersionId"])
        assert held["LegalHold"]["Status"] == "ON"


async def test_legal_hold_is_refused_without_object_lock(s3: S3, tmp_path: Path) -> None:
    finished = await _shell(s3, tmp_path).run("legal-hold", MINE, "--on")
    assert finished.code == 2
    assert "has no Object Lock" in finished.err
    assert len(finished.err.splitlines()) == 1


async def test_legal_hold_is_refused_when_the_archive_is_a_folder(tmp_path: Path) -> None:
    finished = await Shell(tmp_path).run("legal-hold", MINE, "--on")
    assert finished.code == 2
    assert "a folder has no legal hold" in finished.err
