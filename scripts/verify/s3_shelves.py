"""What is in the archive of a bucket, and what S3 keeps beside it: what obstore cannot tell, asked with boto3.

obstore's listing gives up at a key that it would not write itself, such as one with two slashes in a row: but whoever
added one is to be found.
"""

import asyncio
import base64
import binascii
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import Any, TypeVar
from urllib.parse import urlsplit

from scripts.s3_client import code_of, prefix_of, s3_client
from scripts.verify.stored import Kept, Stored
from tasks.errors import StoreFailed
from worker.settings import Settings

T = TypeVar("T")
_AT_ONCE = 32
_SHA256_BYTES = 32
_GONE = {"404", "NoSuchKey", "NotFound"}


class S3Shelves:
    """See ``scripts.verify.stored.Shelves``.

    Args:
        client: boto3's client of S3.
        threads: what its calls wait in.
        bucket: name of the bucket.
        prefix: of the archive in it, with a slash at its end, or empty.
    """

    def __init__(self, client: Any, threads: ThreadPoolExecutor, bucket: str, prefix: str) -> None:
        self._client, self._threads = client, threads
        self._bucket, self._prefix = bucket, prefix

    async def walk(self, prefix: str) -> AsyncIterator[list[Stored]]:
        """Yield everything whose key begins so, a page at a time."""
        asked = {"Bucket": self._bucket, "Prefix": self._prefix + prefix}
        while True:
            page = await self._called("list", lambda: self._client.list_objects_v2(**asked))
            if some := [self._stored(each) for each in page.get("Contents", ())]:
                yield some
            if not page.get("IsTruncated"):
                return
            asked["ContinuationToken"] = page["NextContinuationToken"]

    async def kept(self, key: str) -> Kept | None:
        """Return what is kept beside an object; None when it is gone."""
        return await self._called("read", lambda: self._kept(self._prefix + key))

    def _stored(self, listed: dict[str, Any]) -> Stored:
        return Stored(listed["Key"].removeprefix(self._prefix), listed["Size"], listed["LastModified"].timestamp())

    def _kept(self, key: str) -> Kept | None:
        try:
            head = self._client.head_object(Bucket=self._bucket, Key=key, ChecksumMode="ENABLED")
            tags = self._client.get_object_tagging(Bucket=self._bucket, Key=key)["TagSet"]
        except self._client.exceptions.ClientError as error:
            if code_of(error) in _GONE:
                return None
            raise
        return Kept(
            sha256=_of_the_whole(head),
            metadata=head["Metadata"],
            tags={tag["Key"]: tag["Value"] for tag in tags},
            lock=head.get("ObjectLockMode"),
        )

    async def _called(self, doing: str, call: Callable[[], T]) -> T:
        def translated() -> T:
            with _translated(doing):
                return call()

        return await asyncio.get_running_loop().run_in_executor(self._threads, translated)


@contextmanager
def opened_s3_shelves(settings: Settings) -> Iterator[S3Shelves]:
    """Lend the shelves of the bucket that the settings name."""
    bucket, prefix = urlsplit(settings.archive_url).netloc, prefix_of(settings.archive_url)
    with closing(s3_client(settings.s3_endpoint, _AT_ONCE)) as client, ThreadPoolExecutor(_AT_ONCE) as threads:
        yield S3Shelves(client, threads, bucket, prefix)


def _of_the_whole(head: dict[str, Any]) -> str | None:
    """Return S3's checksum as hex digits; that of an object written in parts is one of its parts' checksums.

    Not every server says so in the checksum itself, but the ETag has a hyphen wherever there are parts (S3 User Guide,
    "Checking object integrity").
    """
    text = head.get("ChecksumSHA256", "")
    if head.get("ChecksumType") == "COMPOSITE" or "-" in text + head.get("ETag", ""):
        return None
    try:
        digest = base64.b64decode(text, validate=True)
    except binascii.Error:
        return None
    return digest.hex() if len(digest) == _SHA256_BYTES else None


@contextmanager
def _translated(doing: str) -> Iterator[None]:
    from botocore import exceptions  # noqa: PLC0415  # takes a fifth of a second that a folder's user need not wait

    try:
        yield
    except exceptions.ClientError as error:
        raise StoreFailed(doing, f"S3 refuses it ({code_of(error)})") from None
    except exceptions.BotoCoreError as error:
        raise StoreFailed(doing, type(error).__name__) from None
