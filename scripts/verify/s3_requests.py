"""Ask S3 for small things, thousands of times: a document of some hundred kB, its tags, what is kept beside it.

boto3 needs two milliseconds of the interpreter for each, which bound a whole verification to 45 MB/s, and aiohttp bound
it to 230; obstore tells neither tags nor checksums nor locks.
"""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import quote, urlsplit

from pyreqwest.client import Client
from pyreqwest.exceptions import PyreqwestError
from pyreqwest.http import HeaderMap
from typing_extensions import Buffer

from scripts.verify.s3_http import http_client
from scripts.verify.sigv4 import SigV4Signer
from tasks.errors import StorageError

_WAITS = (0.2, 1.0, 5.0)
_CODE = re.compile(rb"<Code>([A-Za-z]{1,64})</Code>")
_DOTS = re.compile(r"/\.\.?(/|$)")
_ANY_KEY = "x"


@dataclass(frozen=True, slots=True)
class S3Response:
    """What S3 answered.

    Attributes:
        headers: names in lower case.
        body: empty to a HEAD.
    """

    headers: Mapping[str, str]
    body: Buffer


class S3Requests:
    """Requests about objects of one bucket.

    Args:
        http: the client.
        signer: signs them.
        base: URL of the bucket, with a slash at its end.
        waits: seconds before each further try of what S3 cannot do just now.
    """

    def __init__(self, http: Client, signer: SigV4Signer, base: str, waits: Sequence[float] = _WAITS) -> None:
        self._http, self._signer, self._waits = http, signer, waits
        self._origin, self._path = base[: len(base) - len(urlsplit(base).path)], urlsplit(base).path

    async def send(self, method: str, key: str, right: str, query: str = "", **more: str) -> S3Response | None:
        """Return an answer about an object, or None where there is none.

        Args:
            method: of the request.
            key: of the object, in the bucket.
            right: what the credentials must be allowed, such as ``s3:GetObject``.
            query: a word such as ``tagging``, or empty.
            more: further headers; an underscore in a name stands for a hyphen.

        Raises:
            StorageError: S3 does not answer, or refuses; or the key cannot be asked for.
        """
        path = self._path + quote(key, safe="/-._~")
        if _DOTS.search(path):
            # What makes a URL of it would take it for another object's.
            raise StorageError("read", "a part of its key is . or .., which cannot be asked for")
        headers = {name.replace("_", "-"): value for name, value in more.items()}
        for wait in (*self._waits, None):
            try:
                status, answer = await self._once(method, path, query, headers)
            except PyreqwestError as error:
                if wait is None:
                    raise StorageError("read", type(error).__name__) from None
            else:
                if wait is None or status < HTTPStatus.INTERNAL_SERVER_ERROR:
                    return _check_response(status, answer, right)
            await asyncio.sleep(wait)
        raise AssertionError("the last try returns or raises")

    async def _once(self, method: str, path: str, query: str, more: Mapping[str, str]) -> tuple[int, S3Response]:
        headers = self._signer.headers(method, path, query, more)
        request = self._http.request(method, self._origin + path + (query and f"?{query}")).headers(headers).build()
        response = await request.send()
        return response.status, S3Response(_headers(response.headers), await response.bytes())


@contextlib.asynccontextmanager
async def open_s3_requests(
    client: Any, credentials: Any, bucket: str, at_once: int, waits: Sequence[float] = _WAITS
) -> AsyncIterator[S3Requests]:
    """Lend a line to a bucket.

    Args:
        client: boto3's, which knows where the bucket is.
        credentials: botocore's.
        bucket: its name.
        at_once: connections at most.
        waits: seconds before each further try of what S3 cannot do just now.

    Raises:
        StorageError: the environment names a proxy that is none.
    """
    asked = {"Bucket": bucket, "Key": _ANY_KEY}
    base = client.generate_presigned_url("head_object", Params=asked).partition("?")[0].removesuffix(_ANY_KEY)
    url = urlsplit(base)
    async with http_client(url.scheme, url.hostname or "", at_once) as http:
        signer = SigV4Signer(credentials.get_frozen_credentials, client.meta.region_name, url.netloc)
        yield S3Requests(http, signer, base, waits)


def _check_response(status: int, answer: S3Response, right: str) -> S3Response | None:
    if status == HTTPStatus.OK:
        # Its body is a document: whatever that says is no word of S3's.
        return answer
    # S3's word for what went wrong. The answer to a HEAD has no body, so the status stands for it.
    found = _CODE.search(bytes(answer.body))
    code = found[1].decode() if found else str(status)
    if code in {"404", "NoSuchKey"}:
        return None
    if status == HTTPStatus.FORBIDDEN:
        raise StorageError("read", f"S3 refuses it ({code}); these credentials need {right}")
    raise StorageError("read", f"S3 refuses it ({code})")


def _headers(found: HeaderMap) -> dict[str, str]:
    try:
        return dict(found.items())
    except ValueError:
        # A header that is not ASCII is metadata that we did not write.
        readable: dict[str, str] = {}
        for name in found:
            with contextlib.suppress(ValueError):
                readable[name] = found[name]
        return readable
