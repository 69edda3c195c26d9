"""Each known fault of S3 at each write of an evaluation: every evaluation that ends as archived is in the archive."""

import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import timedelta

import aiohttp
import pytest
from obstore.store import S3Store
from redis.asyncio import Redis

from scripts.simulator.options import SimulatorOptions
from scripts.simulator.scenarios import Scenario, eval_id_for
from scripts.simulator.server import Simulator, start_simulator
from tasks.bundle.unpacker import BundleUnpacker
from tasks.bundle.zip import Limits
from tasks.ledger.ledger import Ledger
from tasks.model.job import EnqueueOptions, Queue, Trigger
from tasks.model.outcome import Outcome
from tasks.pipeline.attempt import attempt
from tasks.pipeline.pipeline import PipelineContext
from tasks.pipeline.upload import UploadTarget
from tasks.resilience.archive_gate import ArchiveGate
from tasks.resilience.retry import RetryPolicy
from tasks.riskos.download import DownloadOptions
from tasks.storage.bucket import S3Bucket
from tests.faults.in_process_s3 import OwnS3, find_broken_manifests
from tests.riskos import (
    KEY,
    Clock,
    ReceivedRequest,
    Reply,
    ScriptedS3,
    Server,
    Then,
    Write,
    http,
    s3_error,
    serve_requests,
)

_PUTS = 4
_SCENARIO = Scenario.DOCUMENTED  # three documents
_PATIENCE_SECONDS = 0.3
_RETRIES = 2
_FOR_GOOD = 1_000
_ATTEMPTS = 5
_RUN = "faults"
_PARKED = "docv:ledger:parked"

FAULTS = {
    "409 without storing": Write(stores=False, reply=Reply(s3_error(409, "ConditionalRequestConflict"))),
    "412 without storing": Write(stores=False, reply=Reply(s3_error(412, "PreconditionFailed"))),
    "stored, then reset": Write(stores=True, reply=Reply(b"", Then.RESET)),
    "reset": Write(stores=False, reply=Reply(b"", Then.RESET)),
    "stored, then 500": Write(stores=True, reply=Reply(s3_error(500, "InternalError"))),
    "stored, 200 without ETag": Write(stores=True, reply=Reply(http(200))),
    "stored, then silence": Write(stores=True, reply=Reply(b"", Then.HANG)),
    "silence": Write(stores=False, reply=Reply(b"", Then.HANG)),
} | {
    f"{status} {code}": Write(stores=False, reply=Reply(s3_error(status, code)))
    for status, code in (
        (503, "SlowDown"),
        (500, "InternalError"),
        (429, "TooManyRequests"),
        (408, "RequestTimeout"),
        (400, "RequestTimeout"),
        (400, "KMS.ThrottlingException"),
        (403, "ExpiredToken"),
        (403, "RequestTimeTooSkewed"),
        (404, "NoSuchBucket"),
    )
}


class FaultyS3(ScriptedS3):
    """An S3 that fails the writes of one object, and is checked after each request.

    Args:
        place: the index of the object in the order of first writes.
        write: how each of these writes is treated.
        times: how many writes fail; later ones succeed.
    """

    def __init__(self, place: int, write: Write, times: int) -> None:
        super().__init__()
        self._place, self._treatment, self.times = place, write, times
        self._seen: list[str] = []
        self.faults = 0
        self.broken: set[str] = set()

    def next_write(self, request: ReceivedRequest) -> Write | None:
        if request.path not in self._seen:
            self._seen.append(request.path)
        if self._seen.index(request.path) != self._place or not self.times:
            return None
        self.times -= 1
        self.faults += 1
        return self._treatment

    def __call__(self, request: ReceivedRequest) -> Reply:
        reply = super().__call__(request)
        self.broken.update(find_broken_manifests(OwnS3(Server(""), self)))
        return reply


@dataclass
class FaultRunner:
    """A ledger and a RiskOS, with which evaluations are archived one after the other."""

    redis: Redis
    simulator: Simulator
    session: aiohttp.ClientSession

    async def archive_with_fault(self, number: int, s3: FaultyS3) -> list[str]:
        """Archive an evaluation in a bucket with a fault; return the errors."""
        await self.redis.flushall()
        eval_id = eval_id_for(_SCENARIO, number)
        ledger, clock, wrong = Ledger(self.redis, 3600.0), Clock(self.redis), []
        await ledger.accept([eval_id], EnqueueOptions(Queue.LIVE, "default", Trigger("enqueue", run=_RUN)))
        async with serve_requests(s3) as server:
            archive = OwnS3(server, s3)
            client = clock.make_client(
                self.simulator.url, self.session, DownloadOptions(), RetryPolicy(attempts=_ATTEMPTS)
            )
            bucket = S3Bucket(store_at(server.url))
            context = PipelineContext(
                client,
                ArchiveGate(client.holds, client.breaker),
                UploadTarget(bucket),
                bucket,
                BundleUnpacker(Limits()),
            )
            for attempt_number in range(_ATTEMPTS):
                for entry in await ledger.lease([eval_id], token=f"worker {attempt_number}"):
                    await attempt(entry, context, ledger)
                ended = await outcome_of(ledger)
                if ended and not archive.keys() & {f"sandbox/{eval_id}/manifest.json"}:
                    wrong.append(f"{ended} without a manifest")
                if ended:
                    break
                s3.times = 0
                await self.make_all_due(ledger, clock)
        wrong += [f"{key} named missing objects" for key in s3.broken]
        return wrong + ([] if ended in {Outcome.ARCHIVED, Outcome.UNCHANGED} else [f"it ended as {ended}"])

    async def make_all_due(self, ledger: Ledger, clock: Clock) -> None:
        """Let time pass until every hold is over, and parked evaluations are due."""
        await clock.let_time_pass()
        parked = await self.redis.zrange(_PARKED, 0, -1)
        if parked:
            await self.redis.zadd(_PARKED, dict.fromkeys(parked, 0))
        await ledger.claim(patience=dict.fromkeys(Queue, 3600.0), of_held={"default": dict.fromkeys(Queue, 1000)})


async def outcome_of(ledger: Ledger) -> Outcome | None:
    """Return the outcome of the only evaluation of the run, or None."""
    outcomes = (await ledger.runs.get_counters(_RUN)).outcomes
    return next((outcome for outcome, count in outcomes.items() if count), None)


def store_at(url: str) -> S3Store:
    """Return a client like that of a worker, but without its pauses."""
    no_pause = timedelta(milliseconds=1)
    return S3Store(
        "archive",
        prefix="kyc",
        endpoint=url,
        virtual_hosted_style_request=False,
        region="us-east-1",
        access_key_id="testing",
        secret_access_key="testing",
        checksum_algorithm="SHA256",
        client_options={"allow_http": True, "timeout": timedelta(seconds=_PATIENCE_SECONDS)},
        retry_config={
            "max_retries": _RETRIES,
            "retry_timeout": timedelta(seconds=30),
            "backoff": {"init_backoff": no_pause, "max_backoff": no_pause, "base": 2},
        },
    )


@contextlib.asynccontextmanager
async def open_runner(redis: Redis) -> AsyncIterator[FaultRunner]:
    options = SimulatorOptions(api_key=KEY, image_bytes=1_000)
    async with await start_simulator(options) as simulator, aiohttp.ClientSession() as session:
        yield FaultRunner(redis, simulator, session)


@pytest.mark.parametrize("times", [1, _FOR_GOOD], ids=["once", "until the attempt is over"])
async def test_no_evaluation_ends_as_archived_without_its_objects_when_s3_fails_a_write(
    times: int, figures: Callable[[str], None], redis: Redis
) -> None:
    wrong, missed = {}, []
    async with open_runner(redis) as runner:
        for fault, write in FAULTS.items():
            for place in range(_PUTS):
                s3 = FaultyS3(place, write, times)
                wrong[fault, place] = await runner.archive_with_fault(place, s3)
                missed += [] if s3.faults else [(fault, place)]
    found = {where: what for where, what in wrong.items() if what}
    figures(
        f"S3, {'once' if times == 1 else 'for an attempt'}: {len(FAULTS)} faults at each of {_PUTS} PUTs: "
        f"archived without its objects: {len(found)}"
    )
    assert found == {}
    assert missed == [], "these faults never happened"
