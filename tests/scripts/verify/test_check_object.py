"""One object is compared with its manifest, as closely as the depth requires."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace

import pytest

from scripts.verify.check_object import check_object
from scripts.verify.context import VerifyContext, VerifyDepth
from scripts.verify.expected_objects import ExpectedObject, expected_objects
from scripts.verify.objects_api import ObjectHead
from scripts.verify.record import ManifestRecord
from tasks.errors import StorageError
from tasks.storage.bucket import ListedObject
from tasks.storage.encrypted_bucket import EncryptedBucket
from tasks.storage.encryption import Keyring, seal
from tests.scripts.verify.manifests import CONTENT, EVALUATION, SHA256, bucket_with, manifest

OTHER = "0" * 64


def expect_selfie() -> ExpectedObject:
    (found,) = expected_objects(EVALUATION, [ManifestRecord("manifest", manifest(), OTHER)]).documents.values()
    return found


@dataclass
class Lister:
    """A lister that returns one result for the object, or raises it, and records the requests.

    The result is None for an archive in a folder.
    """

    head_result: ObjectHead | StorageError | None
    requests: list[str] = field(default_factory=list)

    async def walk(self, prefix: str) -> AsyncIterator[list[ListedObject]]:
        raise AssertionError(prefix)
        yield []

    async def head(self, key: str) -> ObjectHead | None:
        return self._answer("head", key)

    async def get(self, key: str) -> ObjectHead | None:
        return self._answer("get", key)

    def _answer(self, method: str, key: str) -> ObjectHead | None:
        assert key == expect_selfie().key
        self.requests.append(method)
        if isinstance(self.head_result, StorageError):
            raise self.head_result
        return self.head_result


def make_head(**changes: object) -> ObjectHead:
    found = expect_selfie()
    tags = {name: min(allowed) for name, allowed in found.tags.items()}
    complete = ObjectHead(sha256=SHA256, metadata=found.metadata, tags=tags, lock="COMPLIANCE", content=SHA256)
    return replace(complete, **changes)  # type: ignore[arg-type]


async def find_problems(
    lister: Lister,
    *,
    depth: VerifyDepth = VerifyDepth.CONTENT,
    content: bytes | None = CONTENT,
    size: int | None = len(CONTENT),
    lock: str | None = None,
    expected: ExpectedObject | None = None,
) -> list[str]:
    expected = expected or expect_selfie()
    bucket = await bucket_with({} if content is None else {expected.key: content})
    ctx = VerifyContext(bucket, lister, young=0.0, depth=depth, lock_expected=lock)
    stored = None if size is None else ListedObject(expected.key, size, 0.0)
    return [each.problem.value for each in await check_object(ctx, EVALUATION.eval_id, expected, stored)]


@pytest.mark.parametrize("depth", VerifyDepth)
async def test_an_object_has_no_differences_when_it_matches_its_manifest(depth: VerifyDepth) -> None:
    for lister in (Lister(make_head()), Lister(None)):
        assert await find_problems(lister, depth=depth, lock="COMPLIANCE") == []


@pytest.mark.parametrize("depth", VerifyDepth)
async def test_a_missing_object_or_one_of_another_size_needs_no_further_requests(depth: VerifyDepth) -> None:
    lister = Lister(make_head())
    assert await find_problems(lister, depth=depth, size=None) == ["object_missing"]
    assert await find_problems(lister, depth=depth, size=1) == ["size_differs"]
    assert lister.requests == []


async def test_each_depth_sends_only_the_requests_that_it_needs() -> None:
    for depth, requests in (
        (VerifyDepth.SIZES, []),
        (VerifyDepth.CHECKSUMS, ["head"]),
        (VerifyDepth.CONTENT, ["get"]),
    ):
        lister = Lister(make_head())
        assert await find_problems(lister, depth=depth, content=None) == []
        assert lister.requests == requests


async def test_changed_bytes_are_found_at_every_depth_that_compares_hashes() -> None:
    assert await find_problems(Lister(make_head(content=OTHER))) == ["content_differs"]
    assert await find_problems(Lister(make_head(sha256=OTHER)), depth=VerifyDepth.CHECKSUMS) == ["content_differs"]
    assert await find_problems(Lister(None), content=b"another!") == ["content_differs"]
    # Without a checksum of the whole object, the bytes are read.
    assert await find_problems(Lister(make_head(sha256=None)), depth=VerifyDepth.CHECKSUMS, content=b"another!") == [
        "content_differs"
    ]


async def test_a_checksum_of_s3_is_not_trusted_when_bytes_must_be_read() -> None:
    assert await find_problems(Lister(make_head(content=None)), content=b"another!") == ["content_differs"]


@pytest.mark.parametrize("sealed_with", [None, "2026"])
async def test_a_large_or_sealed_object_is_not_read_in_one_request(sealed_with: str | None) -> None:
    expected = replace(expect_selfie(), size=(1 << 20) + 1, sealed_with=sealed_with)
    lister = Lister(make_head(content=None))
    assert await find_problems(lister, expected=expected, size=expected.stored_size) == []
    assert lister.requests == ["head"]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"metadata": {}}, "metadata_differs"),
        ({"tags": {}}, "tags_differ"),
        ({"lock": None}, "lock_differs"),
        ({"lock": "GOVERNANCE"}, "lock_differs"),
    ],
)
async def test_different_metadata_and_tags_are_reported(changes: dict[str, object], problem: str) -> None:
    for depth in (VerifyDepth.CONTENT, VerifyDepth.CHECKSUMS):
        assert set(await find_problems(Lister(make_head(**changes)), depth=depth, lock="COMPLIANCE")) == {problem}
    assert await find_problems(Lister(make_head(lock=None))) == []


async def test_an_object_that_disappears_is_missing_and_a_refused_object_is_not_read() -> None:
    assert await find_problems(Lister(None), content=None) == ["object_missing"]
    assert await find_problems(Lister(StorageError("read", "no"))) == ["not_read"]


@pytest.mark.parametrize(("key_id", "problems"), [("k1", []), ("k2", ["sealing_differs"])])
async def test_an_object_must_be_sealed_with_the_key_of_its_manifest(key_id: str, problems: list[str]) -> None:
    expected = replace(expect_selfie(), sealed_with="k1")
    keyring = Keyring(key_id, {"k1": b"1" * 32, "k2": b"2" * 32})
    bucket = EncryptedBucket(await bucket_with({expected.key: b"".join(seal(CONTENT, expected.key, keyring))}), keyring)
    for depth in (VerifyDepth.CONTENT, VerifyDepth.CHECKSUMS):
        ctx = VerifyContext(bucket, Lister(make_head()), young=0.0, depth=depth)
        found = await check_object(
            ctx, EVALUATION.eval_id, expected, ListedObject(expected.key, expected.stored_size, 0.0)
        )
        assert [each.problem.value for each in found] == problems
