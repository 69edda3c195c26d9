"""Ask S3 for small things, thousands of times: a document of some hundred kB, its tags, what is kept beside it.

boto3 needs two milliseconds of the interpreter for each, which bound a whole verification to 45 MB/s; obstore tells
neither tags nor checksums nor locks.
"""

import asyncio
import contextlib
import re
import ssl
import urllib.request
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import quote, urlsplit

import aiohttp
from yarl import URL

from scripts.verify.signing import Signer
from tasks.errors import StoreFailed

_SECONDS = 60.0
_CONNECT_SECONDS = 5.0
_READ_AHEAD = 1 << 19
_WAITS = (0.2, 1.0, 5.0)
_CODE = re.compile(rb"<Code>([A-Za-z]{1,64})</Code>")
_ANY_KEY = "x"


@dataclass(frozen=True, slots=True)
class Answer:
    """What S3 answered.

    Attributes:
        headers: names without case.
        body: empty to a HEAD.
    """

    headers: Mapping[str, str]
    body: bytes


class S3Line:
    """Requests about objects of one bucket.

    Args:
        http: the session.
        signer: signs them.
        base: URL of the bucket, with a slash at its end.
        waits: seconds before each further try of what S3 cannot do just now.
    """

    def __init__(self, http: aiohttp.ClientSession, signer: Signer, base: str, waits: Sequence[float] = _WAITS) -> None:
        self._http, self._signer, self._waits = http, signer, waits
        self._origin, self._path = base[: len(base) - len(urlsplit(base).path)], urlsplit(base).path

    async def ask(self, method: str, key: str, right: str, query: str = "", **more: str) -> Answer | None:
        """Return an answer about an object, or None where there is none.

        Args:
            method: of the request.
            key: of the object, in the bucket.
            right: what the credentials must be allowed, such as ``s3:GetObject``.
            query: a word such as ``tagging``, or empty.
            more: further headers; an underscore in a name stands for a hyphen.

        Raises:
            StoreFailed: S3 does not answer, or refuses.
        """
        path = self._path + quote(key, safe="/-._~")
        headers = {name.replace("_", "-"): value for name, value in more.items()}
        for wait in (*self._waits, None):
            try:
                status, answer = await self._once(method, path, query, headers)
            except (TimeoutError, aiohttp.ClientError, OSError) as error:
                if wait is None:
                    raise StoreFailed("read", type(error).__name__) from None
            else:
                if wait is None or status < HTTPStatus.INTERNAL_SERVER_ERROR:
                    return _understood(status, answer, right)
            await asyncio.sleep(wait)
        raise AssertionError("the last try returns or raises")

    async def _once(self, method: str, path: str, query: str, more: Mapping[str, str]) -> tuple[int, Answer]:
        url = URL(self._origin + path + (query and f"?{query}"), encoded=True)
        headers = self._signer.headers(method, path, query, more)
        async with self._http.request(method, url, headers=headers, allow_redirects=False) as response:
            return response.status, Answer(response.headers, await response.read())


@contextlib.asynccontextmanager
async def opened_line(
    client: Any, credentials: Any, bucket: str, at_once: int, waits: Sequence[float] = _WAITS
) -> AsyncIterator[S3Line]:
    """Lend a line to a bucket.

    Args:
        client: boto3's, which knows where the bucket is.
        credentials: botocore's.
        bucket: its name.
        at_once: connections at most.
        waits: seconds before each further try of what S3 cannot do just now.
    """
    asked = {"Bucket": bucket, "Key": _ANY_KEY}
    base = client.generate_presigned_url("head_object", Params=asked).partition("?")[0].removesuffix(_ANY_KEY)
    url = urlsplit(base)
    connector = aiohttp.TCPConnector(limit=at_once, ssl=ssl.create_default_context(), ttl_dns_cache=60)
    async with aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=_SECONDS, sock_connect=_CONNECT_SECONDS),
        proxy=_proxy(url.scheme, url.hostname or ""),
        read_bufsize=_READ_AHEAD,
        # What was put there is to be compared, and not what its Content-Encoding would make of it.
        auto_decompress=False,
        skip_auto_headers=("Accept", "Accept-Encoding", "User-Agent"),
    ) as http:
        signer = Signer(credentials.get_frozen_credentials, client.meta.region_name, url.netloc)
        yield S3Line(http, signer, base, waits)


def _proxy(scheme: str, host: str) -> str | None:
    """Return the proxy that the environment names, as boto3 and obstore would take it."""
    return None if urllib.request.proxy_bypass(host) else urllib.request.getproxies().get(scheme)


def _understood(status: int, answer: Answer, right: str) -> Answer | None:
    code = _code(status, answer.body)
    if code in {"404", "NoSuchKey"}:
        return None
    if status == HTTPStatus.FORBIDDEN:
        raise StoreFailed("read", f"S3 refuses it ({code}); these credentials need {right}")
    if status != HTTPStatus.OK:
        raise StoreFailed("read", f"S3 refuses it ({code})")
    return answer


def _code(status: int, body: bytes) -> str:
    """Return S3's word for what went wrong; to a HEAD it has none but the status."""
    found = _CODE.search(body)
    return found[1].decode() if found else str(status)
