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
from tests.scripts.verify.manifests import CONTENT, EVALUATION, SHA256, holding, manifest

OTHER = "0" * 64


def claim() -> ExpectedObject:
    (found,) = expected_objects(EVALUATION, [ManifestRecord("manifest", manifest(), OTHER)]).documents.values()
    return found


@dataclass
class Lister:
    """The facts beside an object, and the requests for them; None for a folder, an error for a store that fails."""

    beside: ObjectHead | StorageError | None
    asked: list[str] = field(default_factory=list)

    async def walk(self, prefix: str) -> AsyncIterator[list[ListedObject]]:
        raise AssertionError(prefix)
        yield []

    async def head(self, key: str) -> ObjectHead | None:
        return self._told("head", key)

    async def get(self, key: str) -> ObjectHead | None:
        return self._told("get", key)

    def _told(self, how: str, key: str) -> ObjectHead | None:
        assert key == claim().key
        self.asked.append(how)
        if isinstance(self.beside, StorageError):
            raise self.beside
        return self.beside


def labelled(**changes: object) -> ObjectHead:
    found = claim()
    tags = {name: min(allowed) for name, allowed in found.tags.items()}
    whole = ObjectHead(sha256=SHA256, metadata=found.metadata, tags=tags, lock="COMPLIANCE", content=SHA256)
    return replace(whole, **changes)  # type: ignore[arg-type]


async def wrong(
    lister: Lister,
    *,
    depth: VerifyDepth = VerifyDepth.CONTENT,
    content: bytes | None = CONTENT,
    size: int | None = len(CONTENT),
    lock: str | None = None,
    of: ExpectedObject | None = None,
) -> list[str]:
    of = of or claim()
    bucket = await holding({} if content is None else {of.key: content})
    ctx = VerifyContext(bucket, lister, young=0.0, depth=depth, lock_expected=lock)
    stored = None if size is None else ListedObject(of.key, size, 0.0)
    return [each.problem.value for each in await check_object(ctx, EVALUATION.eval_id, of, stored)]


@pytest.mark.parametrize("depth", VerifyDepth)
async def test_an_object_has_no_differences_when_it_matches_its_manifest(depth: VerifyDepth) -> None:
    for lister in (Lister(labelled()), Lister(None)):
        assert await wrong(lister, depth=depth, lock="COMPLIANCE") == []


@pytest.mark.parametrize("depth", VerifyDepth)
async def test_a_missing_object_or_one_of_another_size_costs_no_further_requests(depth: VerifyDepth) -> None:
    lister = Lister(labelled())
    assert await wrong(lister, depth=depth, size=None) == ["object_missing"]
    assert await wrong(lister, depth=depth, size=1) == ["size_differs"]
    assert lister.asked == []


async def test_each_depth_sends_only_the_requests_that_it_needs() -> None:
    for depth, asked in (
        (VerifyDepth.SIZES, []),
        (VerifyDepth.CHECKSUMS, ["head"]),
        (VerifyDepth.CONTENT, ["get"]),
    ):
        lister = Lister(labelled())
        assert await wrong(lister, depth=depth, content=None) == []
        assert lister.asked == asked


async def test_changed_bytes_are_found_at_every_depth_that_compares_hashes() -> None:
    assert await wrong(Lister(labelled(content=OTHER))) == ["content_differs"]
    assert await wrong(Lister(labelled(sha256=OTHER)), depth=VerifyDepth.CHECKSUMS) == ["content_differs"]
    assert await wrong(Lister(None), content=b"another!") == ["content_differs"]
    # Without a checksum of the whole object, the bytes are read.
    assert await wrong(Lister(labelled(sha256=None)), depth=VerifyDepth.CHECKSUMS, content=b"another!") == [
        "content_differs"
    ]


async def test_a_checksum_of_s3_is_not_trusted_when_bytes_must_be_read() -> None:
    assert await wrong(Lister(labelled(content=None)), content=b"another!") == ["content_differs"]


@pytest.mark.parametrize("sealed_with", [None, "2026"])
async def test_a_large_or_sealed_object_is_not_read_in_one_request(sealed_with: str | None) -> None:
    of = replace(claim(), size=(1 << 20) + 1, sealed_with=sealed_with)
    lister = Lister(labelled(content=None))
    assert await wrong(lister, of=of, size=of.size_there) == []
    assert lister.asked == ["head"]


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
        assert set(await wrong(Lister(labelled(**changes)), depth=depth, lock="COMPLIANCE")) == {problem}
    assert await wrong(Lister(labelled(lock=None))) == []


async def test_an_object_that_disappears_is_missing_and_a_refused_one_not_read() -> None:
    assert await wrong(Lister(None), content=None) == ["object_missing"]
    assert await wrong(Lister(StorageError("read", "no"))) == ["not_read"]


@pytest.mark.parametrize(("key_id", "problems"), [("k1", []), ("k2", ["sealing_differs"])])
async def test_an_object_must_be_sealed_with_the_key_of_its_manifest(key_id: str, problems: list[str]) -> None:
    of = replace(claim(), sealed_with="k1")
    keyring = Keyring(key_id, {"k1": b"1" * 32, "k2": b"2" * 32})
    bucket = EncryptedBucket(await holding({of.key: b"".join(seal(CONTENT, of.key, keyring))}), keyring)
    for depth in (VerifyDepth.CONTENT, VerifyDepth.CHECKSUMS):
        ctx = VerifyContext(bucket, Lister(labelled()), young=0.0, depth=depth)
        found = await check_object(ctx, EVALUATION.eval_id, of, ListedObject(of.key, of.size_there, 0.0))
        assert [each.problem.value for each in found] == problems
