"""Send thousands of small requests to S3: for documents of some hundred kB, their tags and attributes.

boto3 needs 2 ms of CPU for each, which limits a verification to 45 MB/s; aiohttp limits it to 230 MB/s. obstore returns
neither tags nor checksums nor locks.
"""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import quote, urlsplit

from pyreqwest.client import Client
from pyreqwest.exceptions import PyreqwestError
from pyreqwest.http import HeaderMap
from typing_extensions import Buffer

from scripts.verify.s3_http import http_client
from scripts.verify.sigv4 import SigV4Signer
from tasks.errors import StorageError
from worker.clients.s3_connection import S3Connection
from worker.clients.s3_errors import explain_refusal, read_refusal

_WAITS = (0.2, 1.0, 5.0)
_DOTS = re.compile(r"/\.\.?(/|$)")


@dataclass(frozen=True, slots=True)
class S3Response:
    """An answer of S3.

    Attributes:
        headers: names in lower case.
        body: empty to a HEAD.
    """

    headers: Mapping[str, str]
    body: Buffer


class S3Requests:
    """Requests about objects of one bucket.

    Args:
        http: the HTTP client.
        signer: signs them.
        base: URL of the bucket, with a slash at its end.
        waits: seconds before each retry of a request that S3 cannot serve now.
    """

    def __init__(self, http: Client, signer: SigV4Signer, base: str, waits: Sequence[float] = _WAITS) -> None:
        self._http, self._signer, self._waits = http, signer, waits
        self._origin, self._path = base[: len(base) - len(urlsplit(base).path)], urlsplit(base).path

    async def send(self, method: str, key: str, right: str, query: str = "", **more: str) -> S3Response | None:
        """Return an answer about an object, or None if there is no such object.

        Args:
            method: method of the request.
            key: key of the object in the bucket; empty for the bucket itself.
            right: permission that the credentials need, such as ``s3:GetObject``.
            query: a word such as ``tagging``, parameters encoded and sorted by name, or empty.
            more: further headers; an underscore in a name stands for a hyphen.

        Raises:
            StorageError: S3 does not answer, or refuses; or the key cannot be requested.
        """
        path = self._path + quote(key, safe="/-._~")
        if _DOTS.search(path):
            # The HTTP client would normalize the URL, and request another object.
            raise StorageError("read", "its key has a part . or .., which cannot be requested")
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
    connection: S3Connection, bucket: str, at_once: int, waits: Sequence[float] = _WAITS
) -> AsyncIterator[S3Requests]:
    """Open a client for requests to a bucket.

    Args:
        connection: knows where the bucket is, and has the credentials.
        bucket: its name.
        at_once: maximum number of connections.
        waits: seconds before each retry of a request that S3 cannot serve now.

    Raises:
        SettingsError: the endpoint does not exist, or the environment names something other than a proxy for HTTP.
    """
    endpoint = connection.resolve(bucket)
    async with http_client(at_once, endpoint.proxy, connection.ca_bundle) as http:
        credentials = connection.session.get_credentials().get_frozen_credentials
        signer = SigV4Signer(credentials, endpoint.region, urlsplit(endpoint.url).netloc, service=endpoint.service)
        yield S3Requests(http, signer, f"{endpoint.url}/", waits)


def _check_response(status: int, answer: S3Response, right: str) -> S3Response | None:
    if status == HTTPStatus.OK:
        # Its body is a document, not an answer of S3.
        return answer
    refusal = read_refusal(status, bytes(answer.body).decode(errors="replace"))
    if refusal.code in {"404", "NoSuchKey"} and not refusal.is_page:
        return None
    raise StorageError("read", str(explain_refusal(refusal, right)))


def _headers(found: HeaderMap) -> dict[str, str]:
    try:
        return dict(found.items())
    except ValueError:
        # A header that is not ASCII is metadata that docv-archive did not write.
        readable: dict[str, str] = {}
        for name in found:
            with contextlib.suppress(ValueError):
                readable[name] = found[name]
        return readable
