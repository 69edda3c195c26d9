import asyncio
import hashlib
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from obstore.store import MemoryStore, S3Store

from tasks.bundle.documents import Document, DocumentSource, Kind
from tasks.errors import IntegrityError, StorageError
from tasks.memory.spool import Spool
from tasks.model.evaluation import Evaluation
from tasks.pipeline.upload import UploadTarget, quarantine_bundle, store_documents
from tasks.riskos.response import Bundle
from tasks.storage.bucket import Bucket, ObjectAttributes, S3Bucket, put
from tasks.storage.local_bucket import LocalBucket
from tests.conftest import S3
from tests.riskos import Reply, ScriptedS3, Then, Write, http, s3_error, serve_requests
from worker.clients.archive import open_archive
from worker.config.settings import Settings

EVALUATION = Evaluation("0b54a4d4-6e5b-4f3c-9d2a-7c1f0e8b9a10", "production", "kyc")
NOW = "2026-01-31T12:00:00.000Z"
CONTENT = b"a selfie"
SHA256 = hashlib.sha256(CONTENT).hexdigest()
KEY = "sandbox/selfie"
PATH = f"/archive/{KEY}"
LABELS = ObjectAttributes("image/jpeg", {"eval-id": "0b54a4d4"})


def document(content: bytes, kind: Kind = Kind.SELFIE, **facts: object) -> Document:
    usual = Document(
        name="user_uploaded/../../Jane Doe.jpg",
        kind=kind,
        source=DocumentSource.USER_UPLOADED,
        media_type="image/jpeg",
        extension="jpg",
        data=content,
        sha256=hashlib.sha256(content).hexdigest(),
        size=len(content),
        modified=None,
        name_mismatch=None,
    )
    return replace(usual, **facts)


def s3_at(url: str, patience: float = 30.0) -> S3Bucket:
    """Return a bucket at a scripted server, without pauses between retries."""
    no_pause = timedelta(milliseconds=1)
    store = S3Store(
        "archive",
        endpoint=url,
        virtual_hosted_style_request=False,
        region="us-east-1",
        skip_signature=True,
        client_options={"allow_http": True, "timeout": timedelta(seconds=patience)},
        retry_config={
            "max_retries": 2,
            "retry_timeout": timedelta(seconds=30),
            "backoff": {"init_backoff": no_pause, "max_backoff": no_pause, "base": 2},
        },
    )
    return S3Bucket(store)


@pytest.fixture(params=["memory", "moto", "folder"])
def bucket(request: pytest.FixtureRequest, tmp_path: Path) -> Bucket:
    match request.param:
        case "memory":
            return S3Bucket(MemoryStore())
        case "folder":
            return LocalBucket(tmp_path)
        case _:
            s3: S3 = request.getfixturevalue("s3")
            return S3Bucket(open_archive(Settings(archive_url=f"s3://{s3.bucket}", s3_endpoint=s3.endpoint)))


# One object


async def test_put_succeeds_again_when_the_object_exists(bucket: Bucket) -> None:
    for _ in range(2):
        await put(bucket, KEY, CONTENT, SHA256, LABELS)
        assert await bucket.digest(KEY) == SHA256


async def test_put_raises_integrity_error_when_other_bytes_have_the_key(bucket: Bucket) -> None:
    await bucket.create(KEY, b"other bytes", LABELS)
    with pytest.raises(IntegrityError):
        await put(bucket, KEY, CONTENT, SHA256, LABELS)
    found = await bucket.read(KEY)
    assert found
    assert found.data == b"other bytes"


# docs/design.md lists the answers that were tried on S3. The object exists in the end, whatever S3 answers.
CONFLICT = Reply(s3_error(409, "ConditionalRequestConflict"))
PRECONDITION = Reply(s3_error(412, "PreconditionFailed"))
INTERNAL = Reply(s3_error(500, "InternalError"))
NO_ETAG = Reply(http(200))
RESET = Reply(b"", Then.RESET)
CLOSE = Reply(b"", Then.CLOSE)
HANG = Reply(b"", Then.HANG)


@pytest.mark.parametrize(
    "write",
    [
        pytest.param(Write(stores=True), id="stored, and confirmed"),
        pytest.param(Write(stores=False, reply=CONFLICT), id="a conflict, nothing stored"),
        pytest.param(Write(stores=True, reply=CONFLICT), id="a conflict, but stored"),
        pytest.param(Write(stores=True, reply=PRECONDITION), id="stored, answered as if it had existed"),
        pytest.param(Write(stores=False, reply=PRECONDITION), id="not stored, answered as if it had existed"),
        pytest.param(Write(stores=True, reply=INTERNAL), id="stored, then 500"),
        pytest.param(Write(stores=False, reply=INTERNAL), id="500"),
        pytest.param(Write(stores=True, reply=RESET), id="stored, then a reset"),
        pytest.param(Write(stores=False, reply=RESET), id="a reset"),
        pytest.param(Write(stores=True, reply=CLOSE), id="stored, then closed"),
        pytest.param(Write(stores=False, reply=CLOSE), id="closed"),
        pytest.param(Write(stores=False, reply=Reply(s3_error(503, "SlowDown"))), id="503"),
        pytest.param(Write(stores=False, reply=Reply(s3_error(429, "TooManyRequests"))), id="429"),
        pytest.param(Write(stores=False, reply=Reply(s3_error(408, "RequestTimeout"))), id="408"),
        pytest.param(Write(stores=False, reply=Reply(s3_error(400, "RequestTimeout"))), id="400 RequestTimeout"),
        pytest.param(Write(stores=False, reply=Reply(s3_error(400, "KMS.ThrottlingException"))), id="400 KMS"),
        pytest.param(Write(stores=True, reply=Reply(s3_error(400, "InvalidTag"))), id="stored, then 400"),
        pytest.param(Write(stores=True, reply=NO_ETAG), id="stored, without an ETag"),
        pytest.param(Write(stores=False, reply=NO_ETAG), id="not stored, confirmed without an ETag"),
        pytest.param(Write(stores=True, reply=Reply(b"nonsense\r\n\r\n", Then.CLOSE)), id="stored, then nonsense"),
    ],
)
async def test_put_stores_the_object_whatever_s3_answers(write: Write) -> None:
    scripted_s3 = ScriptedS3(write)
    async with serve_requests(scripted_s3) as server:
        await put(s3_at(server.url), KEY, CONTENT, SHA256, LABELS)
    assert scripted_s3.objects == {PATH: CONTENT}
    assert scripted_s3.writes <= 2


@pytest.mark.parametrize("stores", [True, False])
async def test_put_stores_the_object_when_no_answer_arrives(stores: bool) -> None:  # noqa: FBT001  # both are tried
    scripted_s3 = ScriptedS3(Write(stores=stores, reply=HANG))
    async with serve_requests(scripted_s3) as server:
        await put(s3_at(server.url, patience=0.5), KEY, CONTENT, SHA256, LABELS)
    assert scripted_s3.objects == {PATH: CONTENT}


@pytest.mark.parametrize("reply", [CONFLICT, PRECONDITION, NO_ETAG, RESET])
async def test_put_fails_when_s3_never_stores_the_object(reply: Reply) -> None:
    scripted_s3 = ScriptedS3(*[Write(stores=False, reply=reply)] * 100)
    async with serve_requests(scripted_s3) as server:
        with pytest.raises(StorageError):
            await put(s3_at(server.url), KEY, CONTENT, SHA256, LABELS)
    assert 1 < scripted_s3.writes < 20


@pytest.mark.parametrize(("status", "code"), [(403, "ExpiredToken"), (403, "AccessDenied"), (404, "NoSuchBucket")])
async def test_put_fails_without_a_retry_when_s3_refuses(status: int, code: str) -> None:
    scripted_s3 = ScriptedS3(Write(stores=False, reply=Reply(s3_error(status, code))))
    async with serve_requests(scripted_s3) as server:
        with pytest.raises(StorageError):
            await put(s3_at(server.url), KEY, CONTENT, SHA256, LABELS)
    assert scripted_s3.writes == 1


async def test_put_fails_when_the_object_cannot_be_read_after_an_unclear_answer() -> None:
    scripted_s3 = ScriptedS3(Write(stores=True, reply=RESET))

    def answer(request: object) -> Reply:
        return Reply(s3_error(403, "AccessDenied")) if scripted_s3.writes else scripted_s3(request)

    async with serve_requests(answer) as server:
        with pytest.raises(StorageError, match="denied"):
            await put(s3_at(server.url), KEY, CONTENT, SHA256, LABELS)


@pytest.mark.parametrize("reply", [CONFLICT, PRECONDITION, RESET])
async def test_put_raises_integrity_error_when_other_bytes_are_found_after_an_unclear_answer(reply: Reply) -> None:
    scripted_s3 = ScriptedS3(Write(stores=False, reply=reply))
    scripted_s3.objects[PATH] = b"other bytes"
    async with serve_requests(scripted_s3) as server:
        with pytest.raises(IntegrityError):
            await put(s3_at(server.url), KEY, CONTENT, SHA256, LABELS)
    assert scripted_s3.objects == {PATH: b"other bytes"}


# Documents


async def test_documents_are_stored_by_kind_and_hash_in_the_order_of_the_bundle(bucket: Bucket) -> None:
    documents = [
        document(b"front", Kind.DOCUMENT_FRONT),
        document(b"%PDF", Kind.ATTACHMENT, media_type="application/pdf", extension="pdf"),
        document(b"selfie", Kind.SELFIE),
        document(b"", Kind.OTHER, extension="bin"),
    ]
    stored = await store_documents(UploadTarget(bucket), EVALUATION, documents, archived_at=NOW)
    assert [each.document for each in stored] == documents
    assert [each.key for each in stored] == [
        f"production/{EVALUATION.eval_id}/document_front/{documents[0].sha256}.jpg",
        f"production/{EVALUATION.eval_id}/attachment/{documents[1].sha256}.pdf",
        f"production/{EVALUATION.eval_id}/selfie/{documents[2].sha256}.jpg",
        f"production/{EVALUATION.eval_id}/other/{documents[3].sha256}.bin",
    ]
    for each in stored:
        assert await bucket.digest(each.key) == each.document.sha256


async def test_equal_documents_are_stored_once_for_each_kind(bucket: Bucket) -> None:
    twice = [document(CONTENT, name="a"), document(CONTENT, name="b"), document(CONTENT, Kind.OTHER, name="c")]
    stored = await store_documents(UploadTarget(bucket), EVALUATION, twice, archived_at=NOW)
    assert [each.document.name for each in stored] == ["a", "b", "c"]
    assert stored[0].key == stored[1].key != stored[2].key


async def test_storing_documents_again_changes_nothing(bucket: Bucket) -> None:
    documents = [document(b"one"), document(b"two")]
    first = await store_documents(UploadTarget(bucket), EVALUATION, documents, archived_at=NOW)
    versions = [await bucket.read(each.key) for each in first]
    again = await store_documents(UploadTarget(bucket), EVALUATION, documents, archived_at="2027-01-31T12:00:00.000Z")
    assert again == first
    assert [await bucket.read(each.key) for each in again] == versions


async def test_storing_no_documents_returns_an_empty_list(bucket: Bucket) -> None:
    assert await store_documents(UploadTarget(bucket), EVALUATION, [], archived_at=NOW) == []


async def test_a_mapped_document_is_stored(bucket: Bucket) -> None:
    spool, data = Spool(None), bytes(1 << 20)
    spool.put([data])
    (stored,) = await store_documents(
        UploadTarget(bucket), EVALUATION, [document(data, data=spool.mapped())], archived_at=NOW
    )
    assert await bucket.digest(stored.key) == stored.document.sha256


async def test_a_document_in_s3_has_the_metadata_and_tags_of_the_contract(s3: S3) -> None:
    store = open_archive(Settings(archive_url=f"s3://{s3.bucket}/of/ours", s3_endpoint=s3.endpoint))
    target = UploadTarget(S3Bucket(store), {"team": "kyc", "retention": "7y"})
    (stored,) = await store_documents(target, EVALUATION, [document(CONTENT)], archived_at=NOW)
    location = {"Bucket": s3.bucket, "Key": f"of/ours/{stored.key}"}
    head = s3.client.head_object(**location)
    assert head["ContentType"] == "image/jpeg"
    assert head["Metadata"] == {
        "eval-id": EVALUATION.eval_id,
        "sha256": SHA256,
        "document-kind": "selfie",
        "archived-at": NOW,
    }
    tags = {tag["Key"]: tag["Value"] for tag in s3.client.get_object_tagging(**location)["TagSet"]}
    assert tags == {
        "environment": "production",
        "document-kind": "selfie",
        "source": "user_uploaded",
        "team": "kyc",
        "retention": "7y",
    }
    listed = s3.client.list_objects_v2(Bucket=s3.bucket)["Contents"]
    assert "Jane" not in f"{listed}{head}{tags}"


async def test_a_tag_of_the_user_does_not_replace_a_tag_of_the_contract(s3: S3) -> None:
    store = open_archive(Settings(archive_url=f"s3://{s3.bucket}", s3_endpoint=s3.endpoint))
    target = UploadTarget(S3Bucket(store), {"environment": "mine", "source": "mine", "document-kind": "mine"})
    (stored,) = await store_documents(target, EVALUATION, [document(CONTENT)], archived_at=NOW)
    tags = s3.client.get_object_tagging(Bucket=s3.bucket, Key=stored.key)["TagSet"]
    assert {tag["Key"]: tag["Value"] for tag in tags} == {
        "environment": "production",
        "document-kind": "selfie",
        "source": "user_uploaded",
    }


async def test_storing_documents_fails_when_one_of_them_fails() -> None:
    def answer(request: object) -> Reply:
        refused = b"bad" in request.body
        return Reply(s3_error(403, "AccessDenied")) if refused else scripted_s3(request)

    scripted_s3 = ScriptedS3()
    documents = [document(b"good one"), document(b"bad"), document(b"good two"), document(b"bad as well")]
    async with serve_requests(answer) as server:
        with pytest.raises(StorageError, match="access is denied"):
            await store_documents(UploadTarget(s3_at(server.url)), EVALUATION, documents, archived_at=NOW)


async def test_documents_are_put_with_limited_concurrency() -> None:
    at_once = most = 0

    async def answer(_: object) -> Reply:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0.01)
        at_once -= 1
        return Reply(http(200, headers={"ETag": '"x"'}))

    documents = [document(str(number).encode()) for number in range(40)]
    async with serve_requests(answer) as server:
        stored = await store_documents(UploadTarget(s3_at(server.url)), EVALUATION, documents, archived_at=NOW)
    assert len(stored) == 40
    assert 1 < most <= 8


kinds = st.sampled_from(Kind)
some_documents = st.lists(st.builds(document, st.binary(max_size=3), kinds, name=st.text()), max_size=8)


@given(some_documents)
@settings(max_examples=40)
def test_stored_documents_have_their_bytes_and_keys(documents: list[Document]) -> None:
    async def store_and_read() -> None:
        bucket = S3Bucket(MemoryStore())
        stored = await store_documents(UploadTarget(bucket), EVALUATION, documents, archived_at=NOW)
        assert [each.document for each in stored] == documents
        for each in stored:
            found = await bucket.read(each.key)
            assert found
            assert found.data == each.document.data
            assert each.key.split("/")[:3] == ["production", EVALUATION.eval_id, each.document.kind.value]

    asyncio.run(store_and_read())


# Quarantine


async def test_a_bundle_is_quarantined_unchanged(bucket: Bucket) -> None:
    bundle = Bundle("x.zip", b"no ZIP", hashlib.sha256(b"no ZIP").hexdigest(), 6)
    key = await quarantine_bundle(UploadTarget(bucket), EVALUATION, bundle)
    assert key == f"quarantine/production/{EVALUATION.eval_id}/{bundle.sha256}.zip"
    found = await bucket.read(key)
    assert found
    assert found.data == bundle.data
    assert await quarantine_bundle(UploadTarget(bucket), EVALUATION, bundle) == key
