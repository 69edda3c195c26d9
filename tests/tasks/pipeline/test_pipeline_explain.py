"""One more request to RiskOS explains why there are no documents."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import aiohttp
import pytest
from obstore.store import MemoryStore
from redis.asyncio import Redis

from scripts.simulator.options import SimulatorOptions
from scripts.simulator.records import record_of
from scripts.simulator.scenarios import Scenario, eval_id_for
from scripts.simulator.server import Simulator, start_simulator
from tasks.bundle.unpacker import BundleUnpacker
from tasks.bundle.zip import Limits
from tasks.model.evaluation import Evaluation
from tasks.model.job import Job, Queue, Trigger
from tasks.model.outcome import ArchiveResult, Evidence, NoDocumentsReason, Outcome
from tasks.pipeline.pipeline import PipelineContext, archive
from tasks.pipeline.upload import UploadTarget
from tasks.resilience.archive_gate import ArchiveGate
from tasks.resilience.retry import RetryPolicy
from tasks.riskos.download import DownloadOptions
from tasks.storage.bucket import S3Bucket
from tasks.storage.manifest import Manifest, read_manifest
from tests.riskos import KEY, Clock, ReceivedRequest, Reply, json_reply, serve_requests
from worker.config.settings import Settings

OPTIONS = DownloadOptions(no_documents_texts=Settings().no_documents_texts)
NOTHING = b'{"message": "No Documents Found"}'
REASON = NoDocumentsReason


@dataclass
class Archive:
    """An archive in memory, filled from one RiskOS."""

    ctx: PipelineContext

    async def archive(self, eval_id: str, **order: Any) -> ArchiveResult:
        job = Job(eval_id, "token", Queue.LIVE, "default", False, 0, 0, Trigger("webhook"))  # noqa: FBT003
        return await archive(replace(job, **order), self.ctx)

    async def manifest(self, eval_id: str) -> Manifest:
        found = await read_manifest(self.ctx.manifests, Evaluation(eval_id, "sandbox"))
        assert found
        return found.manifest


@asynccontextmanager
async def open_archive_at(url: str, redis: Redis) -> AsyncIterator[Archive]:
    async with aiohttp.ClientSession() as http:
        client = Clock(redis).make_client(url, http, OPTIONS, RetryPolicy(quick_attempts=1, quick_pause=0.0))
        bucket, gate = S3Bucket(MemoryStore()), ArchiveGate(client.holds, client.breaker)
        yield Archive(
            PipelineContext(
                client,
                gate,
                UploadTarget(bucket),
                bucket,
                BundleUnpacker(Limits()),
                explained_queues=frozenset({Queue.LIVE}),
            )
        )


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with await start_simulator(SimulatorOptions(api_key=KEY, image_bytes=2_000)) as simulator:
        yield simulator


@pytest.fixture
async def filled(simulator: Simulator, redis: Redis) -> AsyncIterator[Archive]:
    async with open_archive_at(simulator.url, redis) as found:
        yield found


@pytest.mark.parametrize(
    ("scenario", "reason"),
    [
        (Scenario.NO_DOCUMENTS, REASON.RETENTION_OR_UNKNOWN),
        (Scenario.NO_DOCUMENTS_MILITARY, REASON.MILITARY),
        (Scenario.NO_DOCUMENTS_MINOR, REASON.MINOR),
        (Scenario.NO_DOCV_STEP, REASON.NO_DOCV_STEP),
        (Scenario.NOT_COMPLETE, REASON.NOT_COMPLETE),
    ],
)
async def test_the_record_gives_the_reason_why_there_are_no_documents(
    filled: Archive, simulator: Simulator, scenario: Scenario, reason: NoDocumentsReason
) -> None:
    eval_id = eval_id_for(scenario, 1)
    result = await filled.archive(eval_id)
    assert (result.outcome, result.reason) == (Outcome.NO_DOCUMENTS, reason)
    manifest = await filled.manifest(eval_id)
    assert (manifest.reason, manifest.response.status) == (reason, 400)
    assert (simulator.stats().requests, simulator.stats().records) == (2, 1)


async def test_the_record_is_not_requested_when_the_reason_is_known_or_the_queue_is_not_explained(
    filled: Archive, simulator: Simulator
) -> None:
    await filled.archive(eval_id_for(Scenario.NO_DOCUMENTS, 1), evidence=(Evidence.UNDER_AGE,))
    await filled.archive(eval_id_for(Scenario.NO_DOCUMENTS, 2), queue=Queue.BACKFILL)
    for scenario in (Scenario.DOCUMENTED, Scenario.NOT_FOUND, Scenario.REJECTED):
        await filled.archive(eval_id_for(scenario, 1))
    assert (simulator.stats().requests, simulator.stats().records) == (5, 0)


@pytest.mark.parametrize(
    ("scenario", "requests"),
    [
        (Scenario.NOT_COMPLETE, 2),
        (Scenario.NO_DOCV_STEP, 2),
        (Scenario.NO_DOCUMENTS, 1),
        (Scenario.NO_DOCUMENTS_MILITARY, 1),
    ],
)
async def test_a_new_order_sends_a_request_only_if_documents_may_come_later(
    filled: Archive, simulator: Simulator, scenario: Scenario, requests: int
) -> None:
    eval_id = eval_id_for(scenario, 1)
    for _ in range(2):
        await filled.archive(eval_id)
    assert simulator.stats().by_evaluation[eval_id] == requests
    assert (await filled.manifest(eval_id)).revision == 1


async def test_the_reason_is_updated_when_the_evaluation_has_completed(redis: Redis) -> None:
    eval_id = eval_id_for(Scenario.NO_DOCUMENTS, 1)
    records = [record_of(eval_id_for(Scenario.NOT_COMPLETE, 1)), record_of(eval_id_for(Scenario.NO_DOCUMENTS_MINOR, 1))]

    def answer(request: ReceivedRequest) -> Reply:
        is_record = not request.path.endswith("/documents")
        return Reply(json_reply(200, json.dumps(records.pop(0)).encode()) if is_record else json_reply(400, NOTHING))

    async with serve_requests(answer) as server, open_archive_at(server.url, redis) as filled:
        for reason in (REASON.NOT_COMPLETE, REASON.MINOR):
            assert (await filled.archive(eval_id)).reason is reason
    manifest = await filled.manifest(eval_id)
    assert manifest.no_documents
    assert manifest.no_documents.evidence == (Evidence.UNDER_AGE,)


@pytest.mark.parametrize(
    "record",
    [
        *(json_reply(status, b"{}") for status in (400, 401, 403, 404, 500)),
        json_reply(200, b"[]"),
        json_reply(200, b"{"),
        json_reply(200, b'{"eval_status": 7, "data_enrichments": "none"}'),
        json_reply(200, b'{"eval_status": "evaluation_paused", "padding": "' + b" " * (1 << 20) + b'"}'),
        b"not HTTP\r\n\r\n",
    ],
)
async def test_an_invalid_record_gives_no_reason_and_places_no_hold(redis: Redis, record: bytes) -> None:
    eval_id = eval_id_for(Scenario.NO_DOCUMENTS, 1)

    def answer(request: ReceivedRequest) -> Reply:
        return Reply(json_reply(400, NOTHING) if request.path.endswith("/documents") else record)

    async with serve_requests(answer) as server, open_archive_at(server.url, redis) as filled:
        result = await filled.archive(eval_id)
        assert await filled.ctx.client.holds.get("default") is None
    assert (result.outcome, result.reason) == (Outcome.NO_DOCUMENTS, REASON.RETENTION_OR_UNKNOWN)
    assert len(server.requests) == 2


async def test_the_record_is_requested_again_after_a_429(redis: Redis) -> None:
    eval_id = eval_id_for(Scenario.NO_DOCUMENTS_MILITARY, 1)
    replies = [
        json_reply(400, NOTHING),
        json_reply(429, b"{}", Retry_After="1"),
        json_reply(200, json.dumps(record_of(eval_id)).encode()),
    ]
    async with serve_requests(lambda _: Reply(replies.pop(0))) as server, open_archive_at(server.url, redis) as filled:
        assert (await filled.archive(eval_id)).reason is REASON.MILITARY
