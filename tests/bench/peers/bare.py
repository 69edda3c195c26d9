"""The bare pipeline: aiohttp, isal and obstore, one SHA-256 of each document; no queue, no checks."""

import asyncio
import contextlib
import hashlib
import sys

import aiohttp
from obstore.store import S3Store

from tests.bench.peers.floor import unpack
from tests.bench.peers.place import BUCKET, KEY, RISKOS, S3, document_key, manifest, manifest_key

_AT_ONCE = 8


async def _archive(eval_id: str, http: aiohttp.ClientSession, s3: S3Store) -> None:
    with contextlib.suppress(FileNotFoundError):
        await s3.get_async(manifest_key(eval_id))
    async with http.get(f"{RISKOS}/api/evaluation/{eval_id}/documents") as answer:
        bundle = await answer.read()
    documents = []
    async with asyncio.TaskGroup() as group:
        for name, content in unpack(memoryview(bundle)):
            sha256 = hashlib.sha256(content).hexdigest()
            group.create_task(_put(s3, document_key(eval_id, sha256), content))
            documents.append((name, len(content), sha256))
    await _put(s3, manifest_key(eval_id), manifest(eval_id, len(bundle), documents))


async def _put(s3: S3Store, key: str, data: bytes) -> None:
    await s3.put_async(key, data, use_multipart=False)


async def _main() -> None:
    slots = asyncio.Semaphore(_AT_ONCE)
    s3 = S3Store(BUCKET, endpoint=S3, client_options={"allow_http": True}, unsigned_payload=True)
    async with (
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {KEY}"}) as http,
        asyncio.TaskGroup() as group,
    ):
        while line := await asyncio.to_thread(sys.stdin.readline):
            await slots.acquire()
            group.create_task(_archive(line.strip(), http, s3)).add_done_callback(lambda _: slots.release())


if __name__ == "__main__":
    asyncio.run(_main())
