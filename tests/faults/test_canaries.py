"""Secrets and personal data go in everywhere; afterwards they are only where they belong."""

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from redis.asyncio import Redis

from tasks.resilience.holds import Reason
from tests import riskos
from tests.commands import Shell
from tests.faults import in_process_s3
from tests.faults.cluster import Cluster, running_cluster
from tests.faults.in_process_s3 import OwnS3
from tests.faults.redis_server import RedisServer
from tests.faults.watching import wait_until_held
from tests.riskos import ReceivedRequest, Reply, Then, Write, http, serve_requests
from tests.zips import Raw, forged, zip_of
from worker.app import make_publishing_app
from worker.broker.envelope import ARCHIVE_TASK
from worker.config.settings import Settings

_RUN = "canaries"
_FOREIGN = "0b54a4d4-6e5b-4f3c-9d2a-7c1f0e8b9a10"


def canary(name: str) -> str:
    return f"CANARY-{name}-7c1f0e"


KEY, PASSWORD = canary("api-key"), canary("redis-password")
# These belong in the manifest, and must be there. Of the others, only the text may be stored, in the documents.
NAME, FILENAME, MESSAGE = canary("Jane-Doe"), canary("filename"), canary("message")
TEXT, HEADER, COOKIE, PAGE, FAULT, STORE = (
    canary(name) for name in ("text", "header", "cookie", "page", "fault", "store")
)
# It arrives in a message that breaks the contract.
ARGUMENT = canary("argument")
SECRETS = (KEY, PASSWORD, in_process_s3.SECRET)
PERSONAL = (NAME, FILENAME, MESSAGE, TEXT, HEADER, COOKIE, PAGE, FAULT, STORE)
EXTRA_HEADERS = {"X-Request-Note": HEADER, "Set-Cookie": f"session={COOKIE}"}

_DOCUMENTS = {
    f"user_uploaded/document_verification/documentfrontDoc_Front_1_{NAME}.jpg": b"\xff\xd8\xff" + TEXT.encode(),
    f"case_attachments/{NAME}.pdf": b"%PDF-1.7\n" + TEXT.encode(),
    f"case_attachments/{NAME}.txt": TEXT.encode(),
}
_DAMAGED = forged(
    Raw(name=f"case_attachments/{NAME}.pdf".encode(), content=TEXT.encode(), local={"crc": 7}, central={"crc": 7}),
    Raw(name=f"{NAME}.txt".encode(), content=TEXT.encode()),
)


def bundle(data: bytes, filename: str = f"{FILENAME}.zip") -> bytes:
    headers = {"Content-Type": "application/zip", "Content-Disposition": f'attachment; filename="{filename}"'}
    return http(200, data, headers=headers | EXTRA_HEADERS)


def error(status: int, text: str, **headers: str) -> bytes:
    return http(status, json.dumps({"message": text}).encode(), headers={"Content-Type": "application/json", **headers})


def page(status: int) -> bytes:
    """Return an answer of a proxy between worker and RiskOS."""
    return http(status, f"<html>{PAGE}</html>".encode(), headers={"Content-Type": "text/html", **EXTRA_HEADERS})


# The first and all later answers for each evaluation; the number in its ID is the index in the list.
ANSWERS: tuple[tuple[bytes | Reply, ...], ...] = (
    *[(bundle(zip_of(_DOCUMENTS)),)] * 14,
    (bundle(_DAMAGED),),
    (bundle(f"no ZIP but {TEXT}".encode()),),
    (error(400, MESSAGE),),
    (error(400, "No Documents Found", **EXTRA_HEADERS),),
    (error(404, MESSAGE),),
    (error(500, FAULT),),
    (page(200),),
    (page(407),),
    (http(302, headers={"Location": f"http://{PAGE}.example/?key={PAGE}", **EXTRA_HEADERS}),),
    (bundle(zip_of(_DOCUMENTS), filename=f"{_FOREIGN}-{FILENAME}.zip"),),
    (Reply(bundle(zip_of(_DOCUMENTS))[:-9], Then.CLOSE),),
    (error(429, FAULT, **{"Retry-After": "1"}, **EXTRA_HEADERS), bundle(zip_of(_DOCUMENTS))),
    (error(401, FAULT, **EXTRA_HEADERS),),
)


def eval_id_of(number: int) -> str:
    return f"cafe0000-0000-4000-8000-{number:012x}"


class ListedRiskOS:
    """A RiskOS that gives each evaluation its answers of the list."""

    def __init__(self) -> None:
        self._left = [iter(answers) for answers in ANSWERS]

    def __call__(self, request: ReceivedRequest) -> Reply:
        number = int(request.path.split("/")[3][-12:], 16)
        reply = next(self._left[number], ANSWERS[number][-1])
        return reply if isinstance(reply, Reply) else Reply(reply)


class GuardedRedis(RedisServer):
    """A server with a password."""

    @property
    def url(self) -> str:
        return f"redis://:{PASSWORD}@127.0.0.1:{self.port}/0"

    async def start(self) -> None:
        await super().start()
        async with Redis(port=self.port) as client:
            await client.config_set("requirepass", PASSWORD)


@contextlib.asynccontextmanager
async def cluster_with_password(
    folder: Path, service: riskos.Server, settings: Mapping[str, str]
) -> AsyncIterator[Cluster]:
    """Run a cluster whose Redis has a password, and whose RiskOS is a scripted one."""
    redis = GuardedRedis(folder / "redis")
    try:
        await redis.start()
        settings = {"DOCV_API_KEY": KEY, "DOCV_LOG_LEVEL": "DEBUG", "DOCV_ATTEMPTS": "2", **settings}
        async with Cluster(folder, redis, service, settings) as cluster:
            yield cluster
    finally:
        await redis.kill()


async def dump_redis(client: Redis) -> str:
    """Return every key and every value."""
    found: list[Any] = []
    async for key in client.scan_iter():
        found.append(key)
        match await client.type(key):
            case "string":
                found.append(await client.get(key))
            case "hash":
                found.append(await client.hgetall(key))
            case "zset":
                found.append(await client.zrange(key, 0, -1))
            case "set":
                found.append(await client.smembers(key))
            case "list":
                found.append(await client.lrange(key, 0, -1))
            case "stream":
                found.append(await client.xrange(key))
            case other:
                pytest.fail(f"{key} is of another type: {other}")
    return str(found)


def read_redis_files(cluster: Cluster) -> str:
    """Return everything that was ever written to Redis, and the server's log."""
    files = [path for path in (cluster.folder / "redis").rglob("*") if path.is_file()]
    return "\n".join(path.read_text(errors="replace") for path in files)


def describe_requests(s3: OwnS3) -> str:
    """Return the requests that S3 received: methods, keys, metadata, tags and other headers."""
    return "\n".join(f"{request.method} {request.path} {dict(request.headers)}" for request in s3.server.requests)


def manifests(s3: OwnS3) -> str:
    return "\n".join(s3.read(key).decode() for key in sorted(s3.keys()) if key.endswith(".json"))


def contents(s3: OwnS3) -> str:
    """Return the bytes of every object: documents, manifests, bundles in quarantine."""
    return "\n".join(data.decode(errors="replace") for data in s3.scripted_s3.objects.values())


async def run_commands(cluster: Cluster) -> dict[str, str]:
    """Run commands, and return their output."""
    shell, outputs = Shell(cluster.folder, cluster.settings), {}
    for command in ("status", "status --json", f"status {_RUN}", "dead-letters list", "dead-letters list --json"):
        finished = await shell.run(*command.split())
        outputs[command] = finished.out + finished.err
    return outputs


def find_hits(places: Mapping[str, str], *wanted: str) -> Iterator[tuple[str, str]]:
    for (place, text), each in itertools.product(places.items(), wanted):
        if each.lower() in text.lower():
            yield place, each


def send_invalid_message(cluster: Cluster) -> None:
    """Send messages that break the contract."""
    app = make_publishing_app(Settings(redis_url=SecretStr(cluster.redis.url)))
    with contextlib.closing(app):
        app.send_task(ARCHIVE_TASK, kwargs={"eval_ids": [eval_id_of(1)], "applicant": ARGUMENT}, queue="live")


async def test_secrets_and_personal_data_stay_where_they_belong(figures: Callable[[str], None], tmp_path: Path) -> None:
    answers, eval_ids = ListedRiskOS(), [eval_id_of(number) for number in range(len(ANSWERS))]
    async with (
        serve_requests(answers) as service,
        in_process_s3.in_process_s3(Write(stores=False, reply=Reply(s3_error_with(STORE)))) as s3,
        cluster_with_password(tmp_path / "stage", service, s3.settings) as cluster,
    ):
        await cluster.start_workers(2)
        # The last two put the account on hold, so they come when nothing else is in flight.
        *others, slowed, refused = eval_ids
        for run, some in ((_RUN, others), ("slowed", [slowed])):
            await cluster.enqueue(some, run=run)
            await cluster.wait_until_all_ended(run, len(some))
        await cluster.enqueue([refused], run="refused")
        await wait_until_held(cluster, Reason.UNAUTHORIZED)
        places = await run_commands(cluster)
        places |= {
            "Redis": await dump_redis(cluster.client),
            "Redis's file": read_redis_files(cluster),
            "S3": describe_requests(s3),
        }
        places |= {worker.log.name: worker.log.read_text() for worker in cluster.workers}
        object_texts, manifest_texts, requests = contents(s3), manifests(s3), str(service.requests)
        outcomes = (await cluster.ledger.runs.get_counters(_RUN)).outcomes
    found = [
        *find_hits(places, *SECRETS, *PERSONAL),
        *find_hits({"objects": object_texts}, *SECRETS, HEADER, COOKIE, PAGE, FAULT, STORE),
        *find_hits({"manifests": manifest_texts}, TEXT),
    ]
    figures(f"{len(SECRETS + PERSONAL)} canaries, {len(places) + 2} places, workers at DEBUG: {len(found)} hits")
    assert found == []
    # All canaries really arrived, so a leak would have been found.
    expected = {"failed": 6, "not_found": 1, "rejected": 1, "no_documents": 1, "unreadable": 2, "archived": 14}
    assert {outcome.value: count for outcome, count in outcomes.items() if count} == expected
    assert KEY in requests
    assert [name in manifest_texts for name in (NAME, FILENAME, MESSAGE)] == [True] * 3
    assert {place for place, _ in find_hits(places, "cafe0000", _RUN)} == set(places)


def s3_error_with(text: str) -> bytes:
    """Return an error of S3 with a text that must not be published."""
    return http(
        403, f"<Error><Code>AccessDenied</Code><Message>{text}</Message></Error>".encode(), headers=EXTRA_HEADERS
    )


async def test_a_secret_is_not_published_when_a_message_breaks_the_contract(tmp_path: Path) -> None:
    async with running_cluster(tmp_path / "stage", DOCV_LOG_LEVEL="DEBUG") as cluster:
        (worker,) = await cluster.start_workers(1)
        await asyncio.to_thread(send_invalid_message, cluster)
        await cluster.wait_until(lambda: "message.rejected" in worker.log.read_text())
        await asyncio.sleep(0.5)
        assert ARGUMENT not in worker.log.read_text()
        assert ARGUMENT not in await dump_redis(cluster.client)
