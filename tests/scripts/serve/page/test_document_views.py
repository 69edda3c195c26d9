"""Only operators see pictures, by personal links that expire. Each view is logged, and changed bytes are refused."""

import base64
import hashlib
import html
import json
import re
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientError
from pydantic import SecretStr
from redis.asyncio import Redis
from structlog.testing import capture_logs

from scripts.serve.auth.credentials import digest, normalize_secret
from scripts.serve.auth.roles import Caller, Role
from scripts.serve.page.document_views import DocumentViews
from scripts.serve.page.signer import PageSigner
from tasks.model.evaluation import Evaluation
from tasks.model.outcome import Outcome
from tasks.storage.encrypted_bucket import EncryptedBucket
from tasks.storage.encryption import Keyring
from tasks.storage.local_bucket import LocalBucket
from tasks.storage.manifest import read_manifest
from tests.archives import archive, documents
from tests.scripts.serve.conftest import OPERATOR, running_client, settings_for
from tests.scripts.serve.page.conftest import PageUser, archive_revisions

SEALING = base64.b64encode(b"k" * 32).decode()


async def picture_links(person: PageUser, eval_id: str) -> list[str]:
    body = (await person.get_page(f"/page/evaluation?id={eval_id}&pictures")).body.decode()
    return [html.unescape(path) for path in dict.fromkeys(re.findall(r'href="(/page/pictures/[^"]+)"', body))]


def change_document(tmp_path: Path, eval_id: str, **changes: Any) -> None:
    """Change the record of the first document in a manifest."""
    path = tmp_path / "archive" / "sandbox" / eval_id / "manifest.json"
    manifest = json.loads(path.read_text("utf-8"))
    manifest["documents"][0] |= changes
    path.write_text(json.dumps(manifest), "utf-8")


def replace_fronts(tmp_path: Path, eval_id: str, data: bytes) -> None:
    """Replace the bytes of every front image."""
    for path in (tmp_path / "archive" / "sandbox" / eval_id / "document_front").iterdir():
        path.chmod(0o600)
        path.write_bytes(data)


async def test_an_operator_sees_a_document_and_the_view_is_logged(operator: PageUser, archived: str) -> None:
    paths = await picture_links(operator, archived)
    assert len(paths) == 6, "three current documents and three superseded ones"
    with capture_logs() as logged:
        answer = await operator.get_page(paths[0])
    assert answer.body == documents(archived, 2, 2_000)[0].data
    assert answer.headers["Content-Type"] == "image/jpeg"
    assert answer.headers["Content-Disposition"].startswith('inline; filename="document_front-')
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    begun, viewed = logged[:2]
    facts = {
        "log_level": "info",
        "actor": "operator",
        "role": "operator",
        "request_id": begun["request_id"],
        "eval_id": archived,
        "kind": "document_front",
        "sha256": hashlib.sha256(answer.body).hexdigest(),
    }
    assert begun == {"event": "access.begun", "action": "document.viewed", **facts}
    assert viewed == {"event": "document.viewed", "whole": True, **facts}


async def test_a_viewer_sees_no_document_even_with_an_operators_link(
    operator: PageUser, viewer: PageUser, archived: str
) -> None:
    path, *_ = await picture_links(operator, archived)
    assert (await viewer.get_page(path)).status == 403
    assert await picture_links(viewer, archived) == []


async def test_a_link_works_for_its_operator_only(redis: Redis, redis_url: str, tmp_path: Path, eval_id: str) -> None:
    await archive_revisions(tmp_path, eval_id)
    other = "otto:password-of-another-operator"
    settings = settings_for(redis_url, tmp_path, operators=(SecretStr(OPERATOR), SecretStr(other)))
    async with running_client(settings) as client:
        path, *_ = await picture_links(PageUser(client, OPERATOR), eval_id)
        assert (await PageUser(client, other).get_page(path)).status == 403
        assert (await PageUser(client, OPERATOR).get_page(path)).status == 200


@pytest.mark.parametrize(
    ("pattern", "by"),
    [(r"document_front", "selfie"), (r"until=\d+", "until=9999999999"), (r"by=.", "by=x"), (r"by=\w+", "by=")],
)
async def test_a_changed_link_is_refused(operator: PageUser, archived: str, pattern: str, by: str) -> None:
    path, *_ = await picture_links(operator, archived)
    assert (await operator.get_page(re.sub(pattern, by, path))).status == 403


async def test_a_link_expires(operator: PageUser, redis: Redis, tmp_path: Path, archived: str) -> None:
    bucket = LocalBucket(tmp_path / "archive")
    evaluation = Evaluation(archived, "sandbox")
    committed = await read_manifest(bucket, evaluation)
    assert committed
    caller = Caller("operator", Role.OPERATOR, digest(normalize_secret(OPERATOR)).hex())
    long_ago = DocumentViews(bucket, bucket, PageSigner(redis), "sandbox", now=lambda: 1_700_000_000.0)
    link = await long_ago.link(caller, evaluation, committed.manifest.documents[0])
    assert (await operator.get_page(link.path)).status == 410


@pytest.mark.parametrize(
    "media_type", ["image/svg+xml", "text/html", "application/pdf", "image/tiff", "image/jpeg; charset=x"]
)
async def test_a_document_is_a_download_when_a_browser_might_run_it(
    operator: PageUser, tmp_path: Path, archived: str, media_type: str
) -> None:
    change_document(tmp_path, archived, media_type=media_type)
    path, *_ = await picture_links(operator, archived)
    answer = await operator.get_page(path)
    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert answer.headers["Content-Disposition"].startswith("attachment;")


@pytest.mark.parametrize("key", ["receipts/secret.jpg", "sandbox/../secret.jpg", "production/x/selfie/y.jpg"])
async def test_a_key_of_another_evaluation_is_not_followed(
    operator: PageUser, tmp_path: Path, archived: str, key: str
) -> None:
    change_document(tmp_path, archived, key=key)
    path, *_ = await picture_links(operator, archived)
    with capture_logs() as logged:
        answer = await operator.get_page(path)
    assert (answer.status, "not followed" in answer.body.decode()) == (502, True)
    assert not [line for line in logged if line["event"] == "document.viewed"]


async def test_a_document_is_not_shown_when_the_manifest_no_longer_lists_it(
    operator: PageUser, tmp_path: Path, archived: str
) -> None:
    path, *_ = await picture_links(operator, archived)
    change_document(tmp_path, archived, sha256="a" * 64)
    assert (await operator.get_page(path)).status == 404


async def test_a_missing_document_is_reported(operator: PageUser, tmp_path: Path, archived: str) -> None:
    path, *_ = await picture_links(operator, archived)
    for file in (tmp_path / "archive" / "sandbox" / archived / "document_front").iterdir():
        file.unlink()
    answer = await operator.get_page(path)
    assert (answer.status, "not in the archive" in answer.body.decode()) == (404, True)


@pytest.mark.parametrize("other", [b"another picture", b"\xff" * 2_004, b"\xff" * 4_000, b""])
async def test_a_document_is_not_shown_when_its_bytes_differ_from_the_manifest(
    operator: PageUser, tmp_path: Path, archived: str, other: bytes
) -> None:
    path, *_ = await picture_links(operator, archived)
    replace_fronts(tmp_path, archived, other)
    with capture_logs() as logged:
        answer = await operator.get_page(path)
    assert (answer.status, "a document differs from the archived one" in answer.body.decode()) == (502, True)
    assert not [line for line in logged if line["event"] == "document.viewed"]


async def test_the_connection_is_cut_when_only_the_end_of_a_document_differs(
    operator: PageUser, tmp_path: Path, eval_id: str
) -> None:
    bucket = LocalBucket(tmp_path / "archive")
    members = documents(eval_id, 1, 3 << 20)[:1]
    await archive(bucket, eval_id, Outcome.ARCHIVED, members)
    [path] = await picture_links(operator, eval_id)
    assert (await operator.get_page(path)).body == members[0].data
    replace_fronts(tmp_path, eval_id, bytes(members[0].data[:-1]) + bytes([members[0].data[-1] ^ 1]))
    with capture_logs() as logged, pytest.raises(ClientError):
        await operator.get_page(path)
    assert [line["error"] for line in logged if line["event"] == "document.not_shown"] == ["IntegrityError"]


async def test_a_sealed_document_is_shown_when_its_key_is_configured(
    redis: Redis, redis_url: str, tmp_path: Path, eval_id: str
) -> None:
    keyring = Keyring.of([f"2026:{SEALING}"])
    inner = LocalBucket(tmp_path / "archive")
    members = documents(eval_id, 1, 2_000)
    await archive(PartlySealedBucket(inner, EncryptedBucket(inner, keyring)), eval_id, Outcome.ARCHIVED, members)  # type: ignore[arg-type]
    keys = (SecretStr(f"2026:{SEALING}"),)
    async with running_client(settings_for(redis_url, tmp_path, encryption_keys=keys)) as client:
        operator = PageUser(client, OPERATOR)
        path, *_ = await picture_links(operator, eval_id)
        assert (await operator.get_page(path)).body == members[0].data
    async with running_client(settings_for(redis_url, tmp_path)) as client:
        answer = await PageUser(client, OPERATOR).get_page(path)
        assert (answer.status, "2026" in answer.body.decode()) == (503, True)


class PartlySealedBucket:
    """Use the sealed bucket for documents and the plain one for manifests, as workers do."""

    def __init__(self, plain: LocalBucket, sealed: EncryptedBucket) -> None:
        self.create = sealed.create
        self.digest = sealed.digest
        self.stream = sealed.stream
        self.replace = plain.replace
        self.read = plain.read
