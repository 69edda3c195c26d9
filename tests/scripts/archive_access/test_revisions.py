import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from scripts.archive_access.revisions import NotExported, check_key, find_manifest
from tasks.model.evaluation import Evaluation
from tasks.storage.bucket import Bucket
from tasks.storage.local_bucket import LocalBucket
from tasks.storage.manifest_records import DocumentRecord
from tests.archived_bundles import EVALUATION, archive_bundle
from tests.zips import zip_of

SHA256 = "a" * 64


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "archive"


@pytest.fixture
async def bucket(root: Path) -> Bucket:
    """An archive with three revisions of one evaluation."""
    bucket = LocalBucket(root)
    for number in range(1, 4):
        await archive_bundle(bucket, zip_of({f"{number}.txt": b"%d" % number}))
    return bucket


def change(path: Path, **facts: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **facts}))


async def get_refusal(bucket: Bucket, revision: int | None = None) -> str:
    with pytest.raises(NotExported) as caught:
        await find_manifest(bucket, EVALUATION, revision)
    return str(caught.value)


async def test_an_evaluation_that_is_not_archived_has_no_manifest(bucket: Bucket) -> None:
    assert await find_manifest(bucket, Evaluation(EVALUATION.eval_id, "production"), None) is None


@pytest.mark.parametrize(("requested", "expected"), [(None, 3), (1, 1), (2, 2), (3, 3)])
async def test_each_revision_can_be_read_as_it_was_written(
    bucket: Bucket, root: Path, requested: int | None, expected: int
) -> None:
    found = await find_manifest(bucket, EVALUATION, requested)
    assert found
    assert found.manifest.revision == expected
    key = EVALUATION.manifest_key if expected == 3 else EVALUATION.revision_key(expected)
    assert found.stored.data == (root / key).read_bytes()


async def test_an_unknown_revision_is_reported(bucket: Bucket) -> None:
    assert await get_refusal(bucket, 4) == "there is no revision 4; the current one is 3"


@pytest.mark.parametrize("changed", [1, 2])
async def test_a_changed_revision_is_refused(bucket: Bucket, root: Path, changed: int) -> None:
    with (root / EVALUATION.revision_key(changed)).open("ab") as file:
        file.write(b"\n")
    assert "its hash differs" in await get_refusal(bucket, 1)


async def test_a_missing_revision_is_reported(bucket: Bucket, root: Path) -> None:
    (root / EVALUATION.revision_key(2)).unlink()
    assert await get_refusal(bucket, 1) == "revision 2 is not in the archive"


async def test_a_revision_is_refused_when_it_replaces_another(bucket: Bucket, root: Path) -> None:
    data = (root / EVALUATION.revision_key(1)).read_bytes()
    (root / EVALUATION.revision_key(2)).write_bytes(data)
    change(root / EVALUATION.manifest_key, previous=hashlib.sha256(data).hexdigest())
    assert await get_refusal(bucket, 2) == "revision 2 says that it is revision 1"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is not valid JSON"),
        (b"{", "is not valid JSON"),
        (b"\xff", "is not valid JSON"),
        (b"[" * 100_000, "is not valid JSON"),
        (b"[]", "does not match its schema"),
        (b'{"schema": 1}', "does not match its schema"),
        (b'{"schema": "2"}', "does not match its schema"),
        (b'{"schema": 2}', "has a newer format (2): use a newer docv-archive"),
    ],
)
async def test_an_unreadable_manifest_is_reported_with_the_reason(
    bucket: Bucket, root: Path, data: bytes, message: str
) -> None:
    (root / EVALUATION.manifest_key).write_bytes(data)
    assert message in await get_refusal(bucket)


async def test_a_manifest_of_another_evaluation_is_refused(bucket: Bucket, root: Path) -> None:
    change(root / EVALUATION.manifest_key, environment="production")
    assert await get_refusal(bucket) == "the manifest belongs to another evaluation"


def document(kind: str, key: str) -> DocumentRecord:
    facts = {"name": "a", "media_type": "image/jpeg", "size": 1, "sha256": SHA256, "modified": None}
    return DocumentRecord.model_validate({"kind": kind, "key": key, **facts})


@pytest.mark.parametrize("extension", ["jpg", "bin", "later"])
def test_the_key_of_a_document_is_accepted(extension: str) -> None:
    check_key(EVALUATION, document("selfie", EVALUATION.document_key("selfie", SHA256, extension)))


@pytest.mark.parametrize(
    ("kind", "key"),
    [
        ("selfie", EVALUATION.manifest_key),
        ("selfie", EVALUATION.document_key("document_back", SHA256, "jpg")),
        ("selfie", EVALUATION.document_key("selfie", "b" * 64, "jpg")),
        ("selfie", Evaluation(EVALUATION.eval_id, "production").document_key("selfie", SHA256, "jpg")),
        ("selfie", "../" + EVALUATION.document_key("selfie", SHA256, "jpg")),
        ("selfie", EVALUATION.document_key("selfie", SHA256, "jpg/../../x")),
        ("selfie", EVALUATION.document_key("selfie", SHA256, "")),
        ("../x", EVALUATION.document_key("../x", SHA256, "jpg")),
        ("passport", EVALUATION.document_key("passport", SHA256, "jpg")),
        ("selfie", ""),
    ],
)
def test_a_key_that_does_not_match_its_document_is_refused(kind: str, key: str) -> None:
    with pytest.raises(NotExported, match="was not followed"):
        check_key(EVALUATION, document(kind, key))
