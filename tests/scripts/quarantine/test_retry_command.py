"""The command `quarantine retry` archives bundles that a newer reader can read, without a request to RiskOS."""

import base64
import json
from pathlib import Path

import pytest
from redis.asyncio import Redis

from tasks.pipeline.upload import UploadTarget
from tasks.storage.bucket import Bucket
from tasks.storage.encrypted_bucket import EncryptedBucket
from tasks.storage.encryption import Keyring
from tasks.storage.local_bucket import LocalBucket
from tasks.storage.manifest import Manifest, read_manifest
from tasks.storage.open_bucket import open_bucket
from tests.archived_bundles import archive_as_unreadable
from tests.archives import eval_ids
from tests.commands import Shell
from tests.conftest import S3
from tests.riskos import ReceivedRequest, Reply, http, serve_requests
from tests.scripts.quarantine.conftest import FORGED, GARBAGE, HEALED, NEVER, WHOLE, evaluation
from tests.zips import zip_of
from worker.clients.archive import open_archive
from worker.config.settings import Settings


@pytest.fixture
async def shell(redis: Redis, redis_url: str, bucket: LocalBucket, tmp_path: Path) -> Shell:
    assert bucket
    assert await redis.ping()
    return Shell(tmp_path, {"DOCV_REDIS_URL": redis_url})


async def test_retry_archives_readable_bundles_and_reports_the_others(shell: Shell) -> None:
    finished = await shell.run("quarantine", "retry", "--json")
    lines = {line["eval_id"]: line for line in map(json.loads, finished.out.splitlines())}
    assert {eval_id: (line["outcome"], line["has_written"]) for eval_id, line in lines.items()} == {
        WHOLE: ("archived", True),
        FORGED: ("unreadable", False),
        GARBAGE: ("unreadable", False),
    }
    assert (finished.code, finished.err) == (1, "3 evaluations: 1 archived, 2 unreadable\n")
    assert [line["action"] for line in finished.access] == ["command.quarantine retry"] * 2
    again = await shell.run("quarantine", "retry", WHOLE)
    assert (again.code, again.out) == (0, f"{WHOLE}  archived      nothing new\n")


async def test_a_lenient_retry_is_limited_to_the_given_ids(shell: Shell) -> None:
    finished = await shell.run("quarantine", "retry", "--lenient", FORGED, HEALED, NEVER)
    assert finished.out.splitlines() == [
        f"{FORGED}  archived      a new revision",
        f"{HEALED}  archived      nothing new",
        f"{NEVER}  not read",
    ]
    assert (finished.code, f"{NEVER}: it has no bundle in quarantine\n" in finished.err) == (1, True)


async def test_retry_archives_a_sealed_and_locked_bundle_in_s3_so_that_verify_passes(shell: Shell, s3: S3) -> None:
    bucket_name = f"locked-{s3.bucket}"
    s3.client.create_bucket(Bucket=bucket_name, ObjectLockEnabledForBucket=True)
    shell.settings |= {
        "DOCV_ARCHIVE_URL": f"s3://{bucket_name}/the/archive",
        "DOCV_S3_ENDPOINT": s3.endpoint,
        "DOCV_ENCRYPTION_KEYS": f"k1:{base64.b64encode(bytes(range(32))).decode()}",
        "DOCV_LOCK_MODE": "GOVERNANCE",
        "DOCV_LOCK_DAYS": "1",
    }
    settings = Settings(archive_url=shell.settings["DOCV_ARCHIVE_URL"], s3_endpoint=s3.endpoint)
    bucket = open_bucket(open_archive(settings))
    sealed = UploadTarget(EncryptedBucket(bucket, Keyring("k1", {"k1": bytes(range(32))})), sealed_with="k1")
    await archive_as_unreadable(bucket, zip_of({"front.jpg": b"front"}), evaluation(WHOLE), sealed)
    finished = await shell.run("quarantine", "retry")
    assert (finished.code, finished.out) == (0, f"{WHOLE}  archived      a new revision\n")
    (document,) = (await get_manifest(bucket, WHOLE)).documents
    head = s3.client.head_object(Bucket=bucket_name, Key=f"the/archive/{document.key}")
    assert (document.sealed_with, head["ObjectLockMode"]) == ("k1", "GOVERNANCE")
    for name in ("DOCV_LOCK_MODE", "DOCV_LOCK_DAYS"):
        del shell.settings[name]  # the bundle was stored without a lock
    verified = await shell.run("verify")
    assert (verified.code, "0 differences" in verified.err) == (0, True), verified.out


async def get_manifest(bucket: Bucket, eval_id: str) -> Manifest:
    found = await read_manifest(bucket, evaluation(eval_id))
    assert found
    return found.manifest


async def test_retry_reads_nothing_without_redis(shell: Shell) -> None:
    del shell.settings["DOCV_REDIS_URL"]
    finished = await shell.run("quarantine", "retry", WHOLE)
    assert (finished.code, "DOCV_REDIS_URL is not set" in finished.err) == (2, True)


async def test_retry_archives_whole_bundles_of_an_older_reader_without_a_request(
    shell: Shell, bucket: LocalBucket, redis: Redis, request: pytest.FixtureRequest
) -> None:
    ids = eval_ids(1_000 if request.config.getoption("--faults") == "long" else 80, seed=7)
    for number, eval_id in enumerate(ids):
        files = {"front.jpg": f"front {number}".encode() * 99, "selfie.jpg": f"selfie {number}".encode() * 99}
        await archive_as_unreadable(bucket, zip_of(files), evaluation(eval_id))

    def answer(_: ReceivedRequest) -> Reply:
        return Reply(http(500))

    async with serve_requests(answer) as riskos:
        shell.settings |= {"DOCV_RISKOS_URL": riskos.url, "DOCV_API_KEY": "key-of-a-worker"}
        finished = await shell.run("quarantine", "retry", "--cause", "local_header_differs")
    assert finished.err.splitlines()[-1] == f"{len(ids) + 3:,} evaluations: {len(ids) + 1:,} archived, 2 unreadable"
    assert riskos.requests == []
    manifests = [await read_manifest(bucket, evaluation(each)) for each in ids]
    assert {(each.manifest.outcome, len(each.manifest.documents)) for each in manifests if each} == {("archived", 2)}
    assert not await redis.hlen("docv:ledger:entries")
