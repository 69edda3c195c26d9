"""`quarantine get` copies bundles as RiskOS sent them, and keeps no damaged copy."""

import base64
import hashlib
from pathlib import Path

import pytest

from scripts.simulator.damage import garbage
from tasks.pipeline.upload import UploadTarget
from tasks.storage.encrypted_bucket import EncryptedBucket
from tasks.storage.encryption import Keyring
from tasks.storage.local_bucket import LocalBucket
from tests.archived_bundles import archive_as_unreadable
from tests.commands import Shell
from tests.scripts.quarantine.conftest import FILES, FORGED, GARBAGE, NEVER, WHOLE, evaluation
from tests.zips import zip_of

KEY = bytes(range(32))


@pytest.fixture
def shell(bucket: LocalBucket, tmp_path: Path) -> Shell:
    assert bucket
    return Shell(tmp_path)


def path_of(eval_id: str, data: bytes) -> str:
    return f"{eval_id}/{hashlib.sha256(data).hexdigest()}.zip"


async def test_get_copies_bundles_as_riskos_sent_them(shell: Shell) -> None:
    finished = await shell.run("quarantine", "get", WHOLE, GARBAGE, "--to", "out")
    paths = {path_of(WHOLE, zip_of(FILES)): zip_of(FILES), path_of(GARBAGE, garbage(FILES)): garbage(FILES)}
    assert (finished.code, finished.out.splitlines()) == (0, list(paths))
    assert finished.err == "out: 2 bundles\n"
    copies = {path.relative_to(shell.folder / "out").as_posix(): path for path in (shell.folder / "out").glob("*/*")}
    assert {name: path.read_bytes() for name, path in copies.items()} == paths
    assert {path.stat().st_mode & 0o777 for path in copies.values()} == {0o600}


async def test_get_opens_a_sealed_bundle_only_with_its_key(shell: Shell, bucket: LocalBucket) -> None:
    keyring = Keyring("k1", {"k1": KEY})
    target = UploadTarget(EncryptedBucket(bucket, keyring), sealed_with="k1")
    await archive_as_unreadable(bucket, zip_of({"x": b"sealed"}), evaluation(NEVER), target)
    finished = await shell.run("quarantine", "get", NEVER, "--to", "out")
    assert (finished.code, "k1" in finished.err, (shell.folder / "out").exists()) == (1, True, False)
    shell.settings["DOCV_ENCRYPTION_KEYS"] = f"k1:{base64.b64encode(KEY).decode()}"
    assert (await shell.run("quarantine", "get", NEVER, "--to", "out")).code == 0
    assert (shell.folder / "out" / path_of(NEVER, zip_of({"x": b"sealed"}))).read_bytes() == zip_of({"x": b"sealed"})


async def test_get_keeps_no_copy_of_a_damaged_bundle(shell: Shell) -> None:
    [path] = (shell.folder / "archive" / "quarantine" / "sandbox" / FORGED).iterdir()
    path.write_bytes(b"changed")
    finished = await shell.run("quarantine", "get", WHOLE, FORGED, "--to", "out")
    assert finished.code == 1
    assert f"{FORGED}: an object in the archive is not valid" in finished.err
    assert [path.suffix for path in (shell.folder / "out").rglob("*") if path.is_file()] == [".zip"]


async def test_get_writes_nothing_when_the_folder_exists_or_no_bundle_matches(shell: Shell) -> None:
    finished = await shell.run("quarantine", "get", NEVER, "--to", "out")
    assert (finished.code, (shell.folder / "out").exists()) == (1, False)
    assert f"{NEVER}: it has no bundle in quarantine" in finished.err
    (shell.folder / "out").mkdir()
    assert (await shell.run("quarantine", "get", WHOLE, "--to", "out")).code == 2
    assert not list((shell.folder / "out").iterdir())
