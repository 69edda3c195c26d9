"""Documents of a damaged bundle are kept, whatever RiskOS answers to the second request."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import aiohttp
import pytest
from obstore.store import MemoryStore
from redis.asyncio import Redis

from scripts.simulator.damage import wrong_crc
from tasks.bundle.unpacker import BundleUnpacker
from tasks.bundle.zip import Limits
from tasks.errors import ArchiveError, BlockedError, Forbidden, RetryableError
from tasks.model.evaluation import Evaluation
from tasks.model.job import Job, Queue, Trigger
from tasks.model.outcome import ArchiveResult, ManifestOutcome, Outcome, SourceStatus
from tasks.pipeline.pipeline import PipelineContext, archive
from tasks.pipeline.upload import UploadTarget
from tasks.resilience.archive_gate import ArchiveGate
from tasks.resilience.retry import RetryPolicy
from tasks.riskos.download import DownloadOptions
from tasks.storage.bucket import S3Bucket
from tasks.storage.manifest import Manifest, StoredManifest, read_manifest
from tests.riskos import Clock, Reply, bundle_reply, json_reply, serve_replies
from tests.zips import zip_of
from worker.config.settings import Settings

EVALUATION = Evaluation("0b54a4d4-6e5b-4f3c-9d2a-7c1f0e8b9a10", "sandbox")
FILES = {"front.jpg": b"front" * 9, "back.jpg": b"back" * 9, "selfie.jpg": b"selfie" * 9}
READABLE = {"back.jpg", "selfie.jpg"}
DAMAGED = bundle_reply(wrong_crc(FILES))
WHOLE = bundle_reply(zip_of(FILES))
NOTHING = json_reply(400, b'{"message": "No Documents Found"}')
UNKNOWN = json_reply(404, b'{"message": "Evaluation not found"}')
REFUSED = json_reply(400, b'{"message": "eval_id is not allowed"}')
FAILED, FORBIDDEN = json_reply(503, b"{}"), json_reply(403, b"{}")


@dataclass
class Archive:
    """An archive in memory."""

    redis: Redis
    bucket: S3Bucket = field(default_factory=lambda: S3Bucket(MemoryStore()))
    requests: int = 0

    @asynccontextmanager
    async def context(self, *replies: Reply | bytes) -> AsyncIterator[PipelineContext]:
        """Yield the context of a worker that has just started, with a RiskOS that gives these answers in order."""
        options = DownloadOptions(no_documents_texts=Settings().no_documents_texts)
        async with serve_replies(*replies) as server, aiohttp.ClientSession() as http:
            client = Clock(self.redis).make_client(
                server.url, http, options, RetryPolicy(quick_attempts=1, quick_pause=0.0)
            )
            gate = ArchiveGate(client.holds, client.breaker)
            try:
                yield PipelineContext(client, gate, UploadTarget(self.bucket), self.bucket, BundleUnpacker(Limits()))
            finally:
                self.requests = len(server.requests)

    async def archive(self, *replies: Reply | bytes, **order: Any) -> ArchiveResult:
        job = Job(EVALUATION.eval_id, "token", Queue.LIVE, "default", False, 0, 0, Trigger("webhook"))  # noqa: FBT003
        async with self.context(*replies) as ctx:
            return await archive(replace(job, **order), ctx)

    async def manifest(self) -> Manifest:
        return (await self._stored()).manifest

    async def _stored(self) -> StoredManifest:
        found = await read_manifest(self.bucket, EVALUATION)
        assert found
        return found

    async def check_stored_files(self, names: set[str]) -> Manifest:
        """Check that the manifest names these files, and that they and all bundles in quarantine exist."""
        manifest = await self.manifest()
        assert {each.name for each in manifest.documents} == names
        keys = [each.key for each in manifest.documents]
        keys += [EVALUATION.quarantine_key(each.sha256) for each in manifest.quarantined]
        for key in keys:
            assert await self.bucket.read(key)
        return manifest


@pytest.fixture
def stored(redis: Redis) -> Archive:
    return Archive(redis)


@pytest.mark.parametrize(
    ("answer", "status"),
    [(NOTHING, SourceStatus.GONE), (UNKNOWN, SourceStatus.UNKNOWN), (REFUSED, SourceStatus.UNKNOWN)],
)
async def test_documents_of_a_damaged_bundle_stay_archived_when_the_second_answer_has_none(
    stored: Archive, answer: Reply, status: SourceStatus
) -> None:
    result = await stored.archive(DAMAGED, answer)
    assert (result.outcome, stored.requests) == (Outcome.UNREADABLE, 2)
    manifest = await stored.check_stored_files(READABLE)
    assert (manifest.outcome, manifest.source_status, manifest.revision) == (Outcome.UNREADABLE, status, 2)
    assert ([each.name for each in manifest.unreadable], len(manifest.quarantined)) == (["front.jpg"], 1)
    assert not manifest.unconfirmed


@pytest.mark.parametrize(
    ("error", "kind"), [(FAILED, RetryableError), (FORBIDDEN, Forbidden), (json_reply(401, b"{}"), BlockedError)]
)
@pytest.mark.parametrize(
    ("later", "outcome", "names"),
    [
        (NOTHING, Outcome.UNREADABLE, READABLE),
        (UNKNOWN, Outcome.UNREADABLE, READABLE),
        (DAMAGED, Outcome.UNREADABLE, READABLE),
        (WHOLE, Outcome.ARCHIVED, set(FILES)),
    ],
)
async def test_documents_of_a_damaged_bundle_stay_unconfirmed_until_riskos_answers(
    stored: Archive, error: Reply, kind: type[ArchiveError], later: bytes | Reply, outcome: Outcome, names: set[str]
) -> None:
    with pytest.raises(kind):
        await stored.archive(DAMAGED, error)
    manifest = await stored.check_stored_files(READABLE)
    assert (manifest.outcome, manifest.unconfirmed, len(manifest.quarantined)) == (Outcome.UNREADABLE, True, 1)
    await stored.redis.flushdb()
    result = await stored.archive(later)
    assert (result.outcome, stored.requests) == (outcome, 1)
    manifest = await stored.check_stored_files(names)
    assert (manifest.outcome, manifest.unconfirmed) == (outcome, False)
    assert manifest.quarantined


@pytest.mark.parametrize(
    ("first", "second"),
    [(FILES, {"front.jpg": b"front" * 9}), ({"front.jpg": b"", "back.jpg": b"1"}, FILES)],
)
async def test_a_second_damaged_bundle_adds_its_documents_to_the_first(
    stored: Archive, first: dict[str, bytes], second: dict[str, bytes]
) -> None:
    bundles = [bundle_reply(wrong_crc(each)) for each in (first, second)]
    result = await stored.archive(*bundles)
    assert result.outcome is Outcome.UNREADABLE
    # The first file of each bundle is damaged.
    manifest = await stored.check_stored_files({*list(first)[1:], *list(second)[1:]})
    assert len(manifest.quarantined) == 2


async def test_a_damaged_bundle_stays_in_quarantine_when_the_second_one_is_whole(
    stored: Archive,
) -> None:
    result = await stored.archive(DAMAGED, WHOLE)
    assert result == ArchiveResult(Outcome.ARCHIVED, answer=Outcome.ARCHIVED, has_written=True)
    manifest = await stored.check_stored_files(set(FILES))
    assert (manifest.unreadable, len(manifest.quarantined), manifest.source_status) == ((), 1, SourceStatus.PRESENT)
    assert (await stored.archive(WHOLE, refresh=True)).outcome is Outcome.UNCHANGED
    assert (await stored.archive(NOTHING, refresh=True)).unchanged is ManifestOutcome.ARCHIVED
    assert len((await stored.check_stored_files(set(FILES))).quarantined) == 1


async def test_a_damaged_bundle_stays_unconfirmed_after_an_order_without_a_request(stored: Archive) -> None:
    with pytest.raises(RetryableError):
        await stored.archive(DAMAGED, FAILED)
    result = await stored.archive(NOTHING, without_request=True)
    assert (result.unchanged, stored.requests) == (ManifestOutcome.UNREADABLE, 0)
    assert (await stored.manifest()).unconfirmed
