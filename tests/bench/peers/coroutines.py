"""Archive evaluations with asyncio, aiohttp, zipfile and aiobotocore."""

import asyncio
import base64
import hashlib
import io
import sys
import zipfile
from typing import Any

import aiohttp
from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from botocore.exceptions import ClientError

from tests.bench.peers.place import BUCKET, KEY, RISKOS, S3, document_key, manifest, manifest_key

_AT_ONCE = 64


def _read(data: bytes) -> list[tuple[str, bytes]]:
    with zipfile.ZipFile(io.BytesIO(data)) as bundle:
        return [(name, bundle.read(name)) for name in bundle.namelist()]


async def _put(s3: Any, key: str, data: bytes, **more: Any) -> str:
    digest = hashlib.sha256(data)
    checksum = base64.b64encode(digest.digest()).decode()
    await s3.put_object(
        Bucket=BUCKET, Key=key, Body=data, ChecksumSHA256=checksum, Tagging="environment=production", **more
    )
    return digest.hexdigest()


async def _archive(eval_id: str, http: aiohttp.ClientSession, s3: Any) -> None:
    try:
        await s3.get_object(Bucket=BUCKET, Key=manifest_key(eval_id))
    except ClientError as error:
        if error.response["Error"]["Code"] != "NoSuchKey":
            raise
    async with http.get(f"{RISKOS}/api/evaluation/{eval_id}/documents") as answer:
        answer.raise_for_status()
        bundle = await answer.read()
    contents = await asyncio.to_thread(_read, bundle)
    keys = [document_key(eval_id, hashlib.sha256(content).hexdigest()) for _, content in contents]
    hashes = await asyncio.gather(
        *(_put(s3, key, content, IfNoneMatch="*") for key, (_, content) in zip(keys, contents, strict=True))
    )
    documents = [(name, len(content), sha256) for (name, content), sha256 in zip(contents, hashes, strict=True)]
    record = manifest(eval_id, len(bundle), documents, hashlib.sha256(bundle).hexdigest())
    await _put(s3, manifest_key(eval_id), record, ContentType="application/json")


async def _main() -> None:
    slots, running = asyncio.Semaphore(_AT_ONCE), set()
    config = AioConfig(max_pool_connections=_AT_ONCE)
    async with (
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {KEY}"}) as http,
        get_session().create_client("s3", endpoint_url=S3, config=config) as s3,
        asyncio.TaskGroup() as group,
    ):
        while line := await asyncio.to_thread(sys.stdin.readline):
            await slots.acquire()
            task = group.create_task(_archive(line.strip(), http, s3))
            running.add(task)
            task.add_done_callback(running.discard)
            task.add_done_callback(lambda _: slots.release())


if __name__ == "__main__":
    asyncio.run(_main())
