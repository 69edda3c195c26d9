"""What is in the archive of a bucket, and what S3 keeps beside it: what obstore cannot tell.

boto3 lists, for obstore's listing gives up at a key that it would not write itself, such as one with two slashes in a
row: but whoever added one is to be found.
"""

import asyncio
import base64
import binascii
import hashlib
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, closing
from typing import Any
from urllib.parse import urlsplit
from xml.etree import ElementTree as ET

from scripts.archive_access.s3_client import error_code, make_s3_client, prefix_of
from scripts.verify.objects_api import ListedObject, ObjectHead
from scripts.verify.s3_requests import S3Requests, open_s3_requests
from tasks.errors import StorageError
from worker.config.settings import Settings

_AT_ONCE = 128
_LISTINGS_AT_ONCE = 32
_SHA256_BYTES = 32
_METADATA = "x-amz-meta-"


class S3ObjectLister:
    """See ``scripts.verify.objects_api.ObjectLister``.

    Args:
        client: boto3's client of S3.
        threads: what its calls wait in.
        requests: for what is asked of each object.
        bucket: name of the bucket.
        prefix: of the archive in it, with a slash at its end, or empty.
    """

    def __init__(
        self, client: Any, threads: ThreadPoolExecutor, requests: S3Requests, bucket: str, prefix: str
    ) -> None:
        self._client, self._threads, self._requests = client, threads, requests
        self._bucket, self._prefix = bucket, prefix

    async def walk(self, prefix: str) -> AsyncIterator[list[ListedObject]]:
        """Yield everything whose key begins so, a page at a time."""
        asked = {"Bucket": self._bucket, "Prefix": self._prefix + prefix}
        while True:
            page = await asyncio.get_running_loop().run_in_executor(self._threads, self._list_page, asked)
            some = [
                ListedObject(each["Key"].removeprefix(self._prefix), each["Size"], each["LastModified"].timestamp())
                for each in page.get("Contents", ())
            ]
            if some:
                yield some
            if not page.get("IsTruncated"):
                return
            asked["ContinuationToken"] = page["NextContinuationToken"]

    async def head(self, key: str) -> ObjectHead | None:
        """Return what is kept beside an object; None when it is gone."""
        return await self._request("HEAD", key)

    async def get(self, key: str) -> ObjectHead | None:
        """Return the same with the hash of its bytes; None when it is gone."""
        return await self._request("GET", key)

    async def _request(self, method: str, key: str) -> ObjectHead | None:
        where = self._prefix + key
        found, tags = await asyncio.gather(
            self._requests.send(method, where, "s3:GetObject", x_amz_checksum_mode="ENABLED"),
            self._requests.send("GET", where, "s3:GetObjectTagging", "tagging"),
        )
        if found is None or tags is None:
            return None
        headers = found.headers
        return ObjectHead(
            sha256=_of_the_whole(headers),
            metadata={name.removeprefix(_METADATA): headers[name] for name in headers if name.startswith(_METADATA)},
            tags=_tags(bytes(tags.body)),
            lock=headers.get("x-amz-object-lock-mode"),
            content=hashlib.sha256(found.body).hexdigest() if method == "GET" else None,
        )

    def _list_page(self, asked: dict[str, str]) -> Any:
        from botocore import exceptions  # noqa: PLC0415  # takes a fifth of a second that a folder's user need not wait

        try:
            return self._client.list_objects_v2(**asked)
        except exceptions.ClientError as error:
            raise StorageError("list", f"S3 refuses it ({error_code(error)})") from None
        except exceptions.BotoCoreError as error:
            raise StorageError("list", type(error).__name__) from None


@asynccontextmanager
async def open_s3_lister(settings: Settings) -> AsyncIterator[S3ObjectLister]:
    """Lend the shelves of the bucket that the settings name."""
    import boto3  # noqa: PLC0415  # takes a fifth of a second that a folder's user need not wait

    bucket, prefix = urlsplit(settings.archive_url).netloc, prefix_of(settings.archive_url)
    credentials = boto3.Session().get_credentials()
    with (
        closing(make_s3_client(settings.s3_endpoint, _LISTINGS_AT_ONCE)) as client,
        ThreadPoolExecutor(_LISTINGS_AT_ONCE) as threads,
    ):
        async with open_s3_requests(client, credentials, bucket, _AT_ONCE) as line:
            yield S3ObjectLister(client, threads, line, bucket, prefix)


def _tags(body: bytes) -> dict[str, str]:
    """Return the tags of S3's answer; botocore reads it with the same parser."""
    try:
        answer = ET.fromstring(body)  # noqa: S314  # S3's own, over TLS
    except ET.ParseError:
        raise StorageError("read", "S3's answer about its tags is none") from None
    tags = [{_name(part): part.text or "" for part in tag} for tag in answer.iter() if _name(tag) == "Tag"]
    return {tag["Key"]: tag.get("Value", "") for tag in tags if tag.get("Key")}


def _name(element: ET.Element) -> str:
    """Return the name of an element without its namespace, which not every server gives; ``{*}`` would be slow."""
    return element.tag.rpartition("}")[2]


def _of_the_whole(headers: Mapping[str, str]) -> str | None:
    """Return S3's checksum as hex digits; that of an object written in parts is one of its parts' checksums.

    Not every server says so in the checksum itself, but the ETag has a hyphen wherever there are parts (S3 User Guide,
    "Checking object integrity").
    """
    text = headers.get("x-amz-checksum-sha256", "")
    if headers.get("x-amz-checksum-type") == "COMPOSITE" or "-" in text + headers.get("etag", ""):
        return None
    try:
        digest = base64.b64decode(text, validate=True)
    except binascii.Error:
        return None
    return digest.hex() if len(digest) == _SHA256_BYTES else None
