# ruff: noqa: ASYNC240  # the tests are about files on a disk
"""A copied document equals the one in the bundle; otherwise it is reported and left out."""

import asyncio
import csv
import json
import stat
import zipfile
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from obstore.store import MemoryStore

from scripts.console.csv_output import make_inert
from scripts.export.copying import Copier, DocumentSelection, Exported
from tasks.errors import StorageError
from tasks.model.outcome import Outcome
from tasks.storage.bucket import Bucket, S3Bucket
from tasks.storage.local_bucket import LocalBucket
from tests.archived_bundles import EVALUATION, archive_bundle, archive_tombstone, record_refusal
from tests.zips import Raw, forged, streamed_zip_of, wide_zip_of, zip_of

FILES = {
    "user_uploaded/1/front.jpg": b"\xff\xd8\xff front",
    "selfie": b"\xff\xd8\xff selfie",
    "case_attachments/a.txt": b"a",
}
PACKERS: tuple[Callable[[dict[str, bytes]], bytes], ...] = (
    zip_of,
    lambda files: zip_of(files, zipfile.ZIP_STORED),
    lambda files: zip_of(files, zipfile.ZIP_BZIP2),
    lambda files: zip_of(files, zipfile.ZIP_LZMA),
    streamed_zip_of,
    wide_zip_of,
)


@pytest.fixture
def bucket(tmp_path: Path) -> LocalBucket:
    return LocalBucket(tmp_path / "archive")


@pytest.fixture
def staging(tmp_path: Path) -> Path:
    return tmp_path / "staging"


async def copy(bucket: Bucket, staging: Path, **wanted: Any) -> Exported:
    return await Copier(bucket, staging, DocumentSelection(**wanted), asyncio.Semaphore(2)).copy(EVALUATION)


def read_copies(staging: Path) -> dict[str, bytes]:
    """Return the documents by their names in the bundle."""
    folder = staging / EVALUATION.eval_id
    listing = folder / "names.csv"
    if not listing.exists():
        return {}
    with listing.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len({row["name"] for row in rows}) == len(rows)
    rows = [row for row in rows if not row["problem"]]
    files = {path for path in folder.rglob("*") if path.is_file()}
    assert files == {folder / row["file"] for row in rows} | {listing, folder / "manifest.json"}
    return {row["name"]: (folder / row["file"]).read_bytes() for row in rows}


def read_problems(staging: Path) -> dict[str, str]:
    """Return the problem of each missing document in names.csv, by its name in the bundle."""
    with (staging / EVALUATION.eval_id / "names.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["problem"]]
    assert {row["file"] for row in rows} <= {""}
    return {row["name"]: row["problem"] for row in rows}


def find_object(bucket_root: Path, content: bytes) -> Path:
    (path,) = [each for each in bucket_root.rglob("*") if each.is_file() and each.read_bytes() == content]
    return path


async def test_every_document_is_copied_unchanged(bucket: LocalBucket, staging: Path) -> None:
    await archive_bundle(bucket, zip_of(FILES))
    exported = await copy(bucket, staging)
    assert (exported.outcome, exported.documents, exported.problems) == ("archived", 3, ())
    assert exported.bytes == sum(map(len, FILES.values()))
    assert read_copies(staging) == FILES
    folder = staging / EVALUATION.eval_id
    committed = await bucket.read(EVALUATION.manifest_key)
    assert committed
    assert (folder / "manifest.json").read_bytes() == committed.data
    assert (folder / "user_uploaded/1/front.jpg").exists()
    modes = {stat.S_IMODE(path.stat().st_mode) for path in folder.rglob("*")}
    assert modes == {0o600, 0o700}


# Formulas are excluded, because names.csv changes them, and so are the characters of odd bytes, because manifests
# escape them.
ODD_BYTES = "".join(map(chr, range(0xEF80, 0xF000)))
NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0" + ODD_BYTES), min_size=1, max_size=40).filter(
    lambda name: not name.endswith("/") and make_inert(name) == name
)


# An empty file is recorded as unreadable and is not exported as a document.
CONTENTS = st.binary(min_size=1, max_size=3_000)


@given(files=st.dictionaries(NAMES, CONTENTS, min_size=1, max_size=8), packer=st.sampled_from(PACKERS))
@settings(max_examples=60)
def test_any_archived_bundle_is_exported_unchanged(
    tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes], packer: Callable[[dict[str, bytes]], bytes]
) -> None:
    async def archive_and_copy(bucket: Bucket, staging: Path) -> None:
        await archive_bundle(bucket, packer(files))
        exported = await copy(bucket, staging)
        assert (exported.documents, exported.problems) == (len(files), ())
        manifest = json.loads((staging / EVALUATION.eval_id / "manifest.json").read_bytes())
        assert [each["name"] for each in manifest["documents"]] == list(files)
        assert list(read_copies(staging).values()) == list(files.values())

    for bucket in (LocalBucket(tmp_path_factory.mktemp("archive")), S3Bucket(MemoryStore())):
        asyncio.run(archive_and_copy(bucket, tmp_path_factory.mktemp("staging")))


async def test_a_name_that_occurs_twice_makes_two_files(bucket: LocalBucket, staging: Path) -> None:
    await archive_bundle(bucket, forged(Raw(name=b"a.txt", content=b"first"), Raw(name=b"a.txt", content=b"second")))
    assert (await copy(bucket, staging)).documents == 2
    folder = staging / EVALUATION.eval_id
    assert [(folder / name).read_text() for name in ("a.txt", "a (2).txt")] == ["first", "second"]


async def test_only_selected_kinds_are_copied(bucket: LocalBucket, staging: Path) -> None:
    await archive_bundle(bucket, zip_of(FILES))
    exported = await copy(bucket, staging, kinds=frozenset({"selfie", "attachment"}))
    assert exported.documents == 2
    assert set(read_copies(staging)) == {"selfie", "case_attachments/a.txt"}


async def test_a_former_revision_has_its_own_documents(bucket: LocalBucket, staging: Path) -> None:
    await archive_bundle(bucket, zip_of(FILES))
    await archive_bundle(bucket, zip_of({"selfie": b"\xff\xd8\xff another"}))
    assert (await copy(bucket, staging, revision=1)).documents == 3
    assert read_copies(staging) == FILES


def read_at_source(staging: Path) -> dict[str, str]:
    """Return the column of names.csv about RiskOS for each document, by its name in the bundle."""
    with (staging / EVALUATION.eval_id / "names.csv").open(encoding="utf-8-sig", newline="") as file:
        return {row["name"]: row["at_source"] for row in csv.DictReader(file)}


async def test_all_held_documents_are_copied_unless_only_current_ones_are_selected(
    bucket: LocalBucket, tmp_path: Path
) -> None:
    await archive_bundle(bucket, zip_of(FILES))
    await archive_bundle(bucket, zip_of({"another": b"content"}))
    assert (await copy(bucket, tmp_path / "all")).documents == 4
    assert (await copy(bucket, tmp_path / "current", current=True)).documents == 1
    assert read_copies(tmp_path / "all") == {**FILES, "another": b"content"}
    assert read_copies(tmp_path / "current") == {"another": b"content"}
    assert read_at_source(tmp_path / "all") == {"another": "yes"} | dict.fromkeys(FILES, "no")


async def test_a_document_is_copied_even_if_riskos_has_deleted_it(bucket: LocalBucket, tmp_path: Path) -> None:
    await archive_bundle(bucket, zip_of(FILES))
    await archive_tombstone(bucket)
    exported = await copy(bucket, tmp_path / "all")
    assert (exported.outcome, exported.documents, exported.problems) == ("archived", 3, ())
    assert read_copies(tmp_path / "all") == FILES
    assert read_at_source(tmp_path / "all") == dict.fromkeys(FILES, "no")
    assert (await copy(bucket, tmp_path / "current", current=True)).documents == 0


async def test_every_document_is_copied_when_the_last_answer_does_not_mention_documents(
    bucket: LocalBucket, tmp_path: Path
) -> None:
    await archive_bundle(bucket, zip_of(FILES))
    await record_refusal(bucket, Outcome.NOT_FOUND, 404)
    for folder, current in (("all", False), ("current", True)):
        assert (await copy(bucket, tmp_path / folder, current=current)).documents == 3
        assert read_at_source(tmp_path / folder) == dict.fromkeys(FILES, "unknown")


async def test_a_tombstone_is_copied_as_its_manifest(bucket: LocalBucket, staging: Path) -> None:
    await archive_tombstone(bucket)
    exported = await copy(bucket, staging)
    assert (exported.outcome, exported.documents, exported.problems) == ("no_documents", 0, ())
    assert [path.name for path in (staging / EVALUATION.eval_id).iterdir()] == ["manifest.json"]


async def test_an_unknown_evaluation_is_reported_as_missing_and_makes_no_folder(
    bucket: LocalBucket, staging: Path
) -> None:
    assert await copy(bucket, staging) == Exported(EVALUATION.eval_id, problems=("it is not in the archive",))
    assert not staging.exists()


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-1], lambda data: data + b"x", lambda data: b"\0" + data[1:], lambda _: b""]
)
async def test_a_document_with_other_bytes_is_reported_and_its_file_removed(
    bucket: LocalBucket, staging: Path, tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    await archive_bundle(bucket, zip_of(FILES))
    path = find_object(tmp_path / "archive", FILES["selfie"])
    path.write_bytes(damage(FILES["selfie"]))
    exported = await copy(bucket, staging)
    (problem,) = exported.problems
    assert problem.startswith("document 2 of the manifest: its bytes differ from the archived ones")
    assert "selfie" not in problem
    assert (exported.documents, exported.is_complete) == (2, False)
    assert set(read_copies(staging)) == set(FILES) - {"selfie"}
    assert read_problems(staging) == {"selfie": problem.removeprefix("document 2 of the manifest: ")}


async def test_a_missing_document_is_reported(bucket: LocalBucket, staging: Path, tmp_path: Path) -> None:
    await archive_bundle(bucket, zip_of(FILES))
    find_object(tmp_path / "archive", FILES["selfie"]).unlink()
    exported = await copy(bucket, staging)
    assert exported.problems == ("document 2 of the manifest: it is not in the archive",)
    assert set(read_copies(staging)) == set(FILES) - {"selfie"}
    assert read_problems(staging) == {"selfie": "it is not in the archive"}


async def test_a_key_of_another_evaluation_is_never_read(bucket: LocalBucket, staging: Path, tmp_path: Path) -> None:
    await archive_bundle(bucket, zip_of(FILES))
    path = tmp_path / "archive" / EVALUATION.manifest_key
    (tmp_path / "secret.jpg").write_bytes(FILES["selfie"])
    manifest = json.loads(path.read_text())
    manifest["documents"][1]["key"] = "../secret.jpg"
    path.write_text(json.dumps(manifest))
    exported = await copy(bucket, staging)
    (problem,) = exported.problems
    assert "a key that is not this evaluation's" in problem
    assert "secret" not in problem
    assert set(read_copies(staging)) == set(FILES) - {"selfie"}


class InterruptedBucket(LocalBucket):
    """A bucket that fails in the middle of each document."""

    async def stream(self, key: str) -> AsyncGenerator[bytes, None] | None:  # noqa: ARG002  # every document fails
        async def read_half() -> AsyncGenerator[bytes, None]:
            yield b"x"
            raise StorageError("read", "the connection broke")

        return read_half()


async def test_an_interrupted_read_is_reported_and_leaves_no_partial_file(tmp_path: Path, staging: Path) -> None:
    bucket = InterruptedBucket(tmp_path / "archive")
    await archive_bundle(bucket, zip_of(FILES))
    exported = await copy(bucket, staging)
    assert len(exported.problems) == 3
    assert all("the connection broke" in problem for problem in exported.problems)
    assert read_copies(staging) == {}
    assert set(read_problems(staging)) == set(FILES)
    assert {path.name for path in staging.rglob("*") if path.is_file()} == {"manifest.json", "names.csv"}
