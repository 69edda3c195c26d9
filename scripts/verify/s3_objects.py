"""List the objects of a bucket, and read what S3 keeps with each: tags, checksum, lock.

obstore cannot: its listing fails at a key that it would not write itself, such as one with two slashes in a row, and
verification has to find foreign objects. boto3 can, but only in threads, and a thread that waits for S3 outlives
Ctrl-C by minutes.
"""

import asyncio
import base64
import binascii
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from datetime import datetime
from urllib.parse import quote, unquote_plus, urlencode, urlsplit
from xml.etree import ElementTree as ET

from scripts.archive_access.s3_client import prefix_of
from scripts.verify.objects_api import ObjectHead
from scripts.verify.s3_requests import S3Requests, open_s3_requests
from tasks.errors import StorageError
from tasks.storage.bucket import ListedObject
from tasks.telemetry.tracing import s3_request
from worker.clients.s3_connection import connect_s3
from worker.clients.s3_errors import explain_page
from worker.config.settings import Settings

_AT_ONCE = 128
_SHA256_BYTES = 32
_METADATA = "x-amz-meta-"


class S3ObjectLister:
    """See ``scripts.verify.objects_api.ObjectLister``.

    Args:
        requests: sends requests to the bucket.
        prefix: prefix of the archive in the bucket, with a slash at its end, or empty.
    """

    def __init__(self, requests: S3Requests, prefix: str) -> None:
        self._requests, self._prefix = requests, prefix

    async def walk(self, prefix: str) -> AsyncIterator[list[ListedObject]]:
        """Yield pages of the objects with a prefix."""
        async with aclosing(self._list_pages(prefix)) as pages:
            async for page in pages:
                if objects := [self._listed(element) for element in page if _name(element) == "Contents"]:
                    yield objects

    async def list_folders(self, prefix: str) -> AsyncIterator[list[str]]:
        """Yield pages of the names between a prefix and the next slash."""
        start = len(self._prefix + prefix)
        async with aclosing(self._list_pages(prefix, delimiter="/")) as pages:
            async for page in pages:
                found = (_text(element, "Prefix") for element in page if _name(element) == "CommonPrefixes")
                if names := [unquote_plus(each)[start:-1] for each in found]:
                    yield names

    async def _list_pages(self, prefix: str, **more: str) -> AsyncGenerator[ET.Element, None]:
        asked = {"encoding-type": "url", "list-type": "2", "prefix": self._prefix + prefix, **more}
        while True:
            page = await self._list_page(asked)
            yield page
            if _text(page, "IsTruncated") != "true":
                return
            asked["continuation-token"] = _text(page, "NextContinuationToken")

    async def _list_page(self, asked: Mapping[str, str]) -> ET.Element:
        query = urlencode(sorted(asked.items()), safe="-._~", quote_via=quote)
        with s3_request("ListObjectsV2"):
            answer = await self._requests.send("GET", "", "s3:ListBucket", query)
        page = _parse(bytes(answer.body)) if answer else None
        if page is None or not _is_listing(page):
            raise StorageError("list", str(explain_page("200")))
        return page

    def _listed(self, element: ET.Element) -> ListedObject:
        # S3 encodes keys as forms are, because XML cannot hold every character of a key.
        key = unquote_plus(_text(element, "Key")).removeprefix(self._prefix)
        modified = datetime.fromisoformat(_text(element, "LastModified"))
        return ListedObject(key, int(_text(element, "Size")), modified.timestamp())

    async def head(self, key: str) -> ObjectHead | None:
        """Return the attributes of an object; None if it is gone."""
        return await self._request("HEAD", key)

    async def get(self, key: str) -> ObjectHead | None:
        """Return the attributes with the hash of the bytes; None if the object is gone."""
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
        if "etag" not in headers:
            # S3 sends one with each object: a proxy's page must not be taken for a document that was changed.
            raise StorageError("read", str(explain_page("200")))
        return ObjectHead(
            sha256=_of_the_whole(headers),
            metadata={name.removeprefix(_METADATA): headers[name] for name in headers if name.startswith(_METADATA)},
            tags=_tags(bytes(tags.body)),
            lock=headers.get("x-amz-object-lock-mode"),
            content=hashlib.sha256(found.body).hexdigest() if method == "GET" else None,
        )


@asynccontextmanager
async def open_s3_lister(settings: Settings) -> AsyncIterator[S3ObjectLister]:
    """Open the lister of the bucket in the settings."""
    bucket, prefix = urlsplit(settings.archive_url).netloc, prefix_of(settings.archive_url)
    connection = connect_s3(settings.s3_endpoint, settings.s3_checksum)
    async with open_s3_requests(connection, bucket, _AT_ONCE) as requests:
        yield S3ObjectLister(requests, prefix)


def _tags(body: bytes) -> dict[str, str]:
    answer = _parse(body)
    if answer is None:
        raise StorageError("read", "S3's answer about its tags is not XML")
    tags = [{_name(part): part.text or "" for part in tag} for tag in answer.iter() if _name(tag) == "Tag"]
    return {tag["Key"]: tag.get("Value", "") for tag in tags if tag.get("Key")}


def _parse(body: bytes) -> ET.Element | None:
    """Parse an answer of S3 as botocore does; None if it is not XML."""
    try:
        return ET.fromstring(body)  # noqa: S314  # S3's own, over TLS
    except ET.ParseError:
        return None


def _is_listing(page: ET.Element) -> bool:
    """Return whether a page is a listing, and has a token if there is more: a part must not look complete."""
    has_more = _text(page, "IsTruncated") == "true"
    return _name(page) == "ListBucketResult" and (not has_more or _text(page, "NextContinuationToken") != "")


def _text(element: ET.Element, name: str) -> str:
    return next((part.text or "" for part in element if _name(part) == name), "")


def _name(element: ET.Element) -> str:
    """Return the name of an element without its namespace, which some servers omit; ``{*}`` would be slow."""
    return element.tag.rpartition("}")[2]


def _of_the_whole(headers: Mapping[str, str]) -> str | None:
    """Return S3's checksum as hex digits; None for an object written in parts, whose checksum is not that of the bytes.

    Not every server marks such a checksum itself, but the ETag has a hyphen wherever there are parts (S3 User Guide,
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
