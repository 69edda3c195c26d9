# ruff: noqa: ASYNC240  # the disk is what is tested here
"""What is copied out of the archive is what was in the bundle, or is named and not there."""

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

from scripts.export.copying import Copier, DocumentSelection, Exported
from tasks.errors import StorageError
from tasks.model.outcome import Outcome
from tasks.storage.bucket import Bucket, S3Bucket
from tasks.storage.local_bucket import LocalBucket
from tests.archived_bundles import EVALUATION, archive_bundle, archive_refusal, archive_tombstone
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
def room(tmp_path: Path) -> Path:
    return tmp_path / "room"


async def copy(bucket: Bucket, room: Path, **wanted: Any) -> Exported:
    return await Copier(bucket, room, DocumentSelection(**wanted), asyncio.Semaphore(2)).copy(EVALUATION)


def found_in(room: Path) -> dict[str, bytes]:
    """Return the documents, by the names that they had in the bundle."""
    folder = room / EVALUATION.eval_id
    listing = folder / "names.csv"
    if not listing.exists():
        return {}
    with listing.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len({row["name"] for row in rows}) == len(rows)
    there = {path for path in folder.rglob("*") if path.is_file()}
    assert there == {folder / row["file"] for row in rows} | {listing, folder / "manifest.json"}
    return {row["name"]: (folder / row["file"]).read_bytes() for row in rows}


def object_of(bucket_root: Path, content: bytes) -> Path:
    (path,) = [each for each in bucket_root.rglob("*") if each.is_file() and each.read_bytes() == content]
    return path


async def test_every_document_comes_out_as_it_was(bucket: LocalBucket, room: Path) -> None:
    await archive_bundle(bucket, zip_of(FILES))
    exported = await copy(bucket, room)
    assert (exported.outcome, exported.documents, exported.problems) == ("archived", 3, ())
    assert exported.bytes == sum(map(len, FILES.values()))
    assert found_in(room) == FILES
    folder = room / EVALUATION.eval_id
    committed = await bucket.read(EVALUATION.manifest_key)
    assert committed
    assert (folder / "manifest.json").read_bytes() == committed.data
    assert (folder / "user_uploaded/1/front.jpg").exists()
    modes = {stat.S_IMODE(path.stat().st_mode) for path in folder.rglob("*")}
    assert modes == {0o600, 0o700}


# Names that no spreadsheet could run, so that names.csv has them as they are.
NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=40).filter(
    lambda name: not name.endswith("/") and name[0] not in "=+-@\t\r"
)


# An empty file is recorded as unreadable and is not exported as a document.
CONTENTS = st.binary(min_size=1, max_size=3_000)


@given(files=st.dictionaries(NAMES, CONTENTS, min_size=1, max_size=8), packer=st.sampled_from(PACKERS))
@settings(max_examples=60, deadline=None)
def test_whatever_was_zipped_and_archived_is_exported_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes], packer: Callable[[dict[str, bytes]], bytes]
) -> None:
    async def there_and_back(bucket: Bucket, room: Path) -> None:
        await archive_bundle(bucket, packer(files))
        exported = await copy(bucket, room)
        assert (exported.documents, exported.problems) == (len(files), ())
        manifest = json.loads((room / EVALUATION.eval_id / "manifest.json").read_bytes())
        assert [each["name"] for each in manifest["documents"]] == list(files)
        assert list(found_in(room).values()) == list(files.values())

    for bucket in (LocalBucket(tmp_path_factory.mktemp("archive")), S3Bucket(MemoryStore())):
        asyncio.run(there_and_back(bucket, tmp_path_factory.mktemp("room")))


async def test_names_that_occur_twice_are_two_files(bucket: LocalBucket, room: Path) -> None:
    await archive_bundle(bucket, forged(Raw(name=b"a.txt", content=b"first"), Raw(name=b"a.txt", content=b"second")))
    assert (await copy(bucket, room)).documents == 2
    folder = room / EVALUATION.eval_id
    assert [(folder / name).read_text() for name in ("a.txt", "a (2).txt")] == ["first", "second"]


async def test_only_the_kinds_that_are_wanted_are_copied(bucket: LocalBucket, room: Path) -> None:
    await archive_bundle(bucket, zip_of(FILES))
    exported = await copy(bucket, room, kinds=frozenset({"selfie", "attachment"}))
    assert exported.documents == 2
    assert set(found_in(room)) == {"selfie", "case_attachments/a.txt"}


async def test_a_former_revision_has_the_documents_of_then(bucket: LocalBucket, room: Path) -> None:
    await archive_bundle(bucket, zip_of(FILES))
    await archive_bundle(bucket, zip_of({"selfie": b"\xff\xd8\xff another"}))
    assert (await copy(bucket, room, revision=1)).documents == 3
    assert found_in(room) == FILES


def at_source(room: Path) -> dict[str, str]:
    """Return what names.csv says of each document, by its name in the bundle."""
    with (room / EVALUATION.eval_id / "names.csv").open(encoding="utf-8", newline="") as file:
        return {row["name"]: row["at_source"] for row in csv.DictReader(file)}


async def test_everything_held_comes_out_and_only_what_riskos_has_if_that_is_wanted(
    bucket: LocalBucket, tmp_path: Path
) -> None:
    await archive_bundle(bucket, zip_of(FILES))
    await archive_bundle(bucket, zip_of({"another": b"content"}))
    assert (await copy(bucket, tmp_path / "all")).documents == 4
    assert (await copy(bucket, tmp_path / "current", current=True)).documents == 1
    assert found_in(tmp_path / "all") == {**FILES, "another": b"content"}
    assert found_in(tmp_path / "current") == {"another": b"content"}
    assert at_source(tmp_path / "all") == {"another": "yes"} | dict.fromkeys(FILES, "no")


async def test_what_riskos_has_no_more_comes_out_of_the_archive(bucket: LocalBucket, tmp_path: Path) -> None:
    await archive_bundle(bucket, zip_of(FILES))
    await archive_tombstone(bucket)
    exported = await copy(bucket, tmp_path / "all")
    assert (exported.outcome, exported.documents, exported.problems) == ("archived", 3, ())
    assert found_in(tmp_path / "all") == FILES
    assert at_source(tmp_path / "all") == dict.fromkeys(FILES, "no")
    assert (await copy(bucket, tmp_path / "current", current=True)).documents == 0


async def test_an_answer_that_says_nothing_of_documents_leaves_out_none(bucket: LocalBucket, tmp_path: Path) -> None:
    await archive_bundle(bucket, zip_of(FILES))
    await archive_refusal(bucket, Outcome.NOT_FOUND, 404)
    for folder, current in (("all", False), ("current", True)):
        assert (await copy(bucket, tmp_path / folder, current=current)).documents == 3
        assert at_source(tmp_path / folder) == dict.fromkeys(FILES, "unknown")


async def test_a_tombstone_is_its_manifest_alone(bucket: LocalBucket, room: Path) -> None:
    await archive_tombstone(bucket)
    exported = await copy(bucket, room)
    assert (exported.outcome, exported.documents, exported.problems) == ("no_documents", 0, ())
    assert [path.name for path in (room / EVALUATION.eval_id).iterdir()] == ["manifest.json"]


async def test_what_is_not_archived_is_said_to_be_missing_and_makes_no_folder(bucket: LocalBucket, room: Path) -> None:
    assert await copy(bucket, room) == Exported(EVALUATION.eval_id, problems=("it is not in the archive",))
    assert not room.exists()


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-1], lambda data: data + b"x", lambda data: b"\0" + data[1:], lambda _: b""]
)
async def test_a_document_with_other_bytes_is_named_and_its_file_removed(
    bucket: LocalBucket, room: Path, tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    await archive_bundle(bucket, zip_of(FILES))
    path = object_of(tmp_path / "archive", FILES["selfie"])
    path.write_bytes(damage(FILES["selfie"]))
    exported = await copy(bucket, room)
    (problem,) = exported.problems
    assert problem.startswith("document 2 of the manifest: its bytes are not those that were archived")
    assert "selfie" not in problem
    assert exported.documents == 2
    assert set(found_in(room)) == set(FILES) - {"selfie"}


async def test_a_document_that_is_gone_is_named(bucket: LocalBucket, room: Path, tmp_path: Path) -> None:
    await archive_bundle(bucket, zip_of(FILES))
    object_of(tmp_path / "archive", FILES["selfie"]).unlink()
    exported = await copy(bucket, room)
    assert exported.problems == ("document 2 of the manifest: it is not in the archive",)
    assert set(found_in(room)) == set(FILES) - {"selfie"}


async def test_a_key_of_somebody_else_is_never_read(bucket: LocalBucket, room: Path, tmp_path: Path) -> None:
    await archive_bundle(bucket, zip_of(FILES))
    path = tmp_path / "archive" / EVALUATION.manifest_key
    (tmp_path / "secret.jpg").write_bytes(FILES["selfie"])
    manifest = json.loads(path.read_text())
    manifest["documents"][1]["key"] = "../secret.jpg"
    path.write_text(json.dumps(manifest))
    exported = await copy(bucket, room)
    (problem,) = exported.problems
    assert "a key that is not this evaluation's" in problem
    assert "secret" not in problem
    assert set(found_in(room)) == set(FILES) - {"selfie"}


class Unsteady(LocalBucket):
    """A bucket that breaks off in the middle of each document."""

    async def stream(self, key: str) -> AsyncGenerator[bytes, None] | None:  # noqa: ARG002  # each document
        async def half() -> AsyncGenerator[bytes, None]:
            yield b"x"
            raise StorageError("read", "the connection broke")

        return half()


async def test_a_bucket_that_breaks_off_is_named_and_leaves_no_half(tmp_path: Path, room: Path) -> None:
    bucket = Unsteady(tmp_path / "archive")
    await archive_bundle(bucket, zip_of(FILES))
    exported = await copy(bucket, room)
    assert len(exported.problems) == 3
    assert all("the connection broke" in problem for problem in exported.problems)
    assert found_in(room) == {}
    assert [path.name for path in room.rglob("*") if path.is_file()] == ["manifest.json"]
