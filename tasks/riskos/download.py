"""Request an evaluation's documents from RiskOS, and read the response: a bundle, or why RiskOS has none.

The statuses are those of RiskOS's documentation ("Image Retrieval") and of its OpenAPI file.
"""

import contextlib
import os
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from http import HTTPStatus
from importlib.metadata import version
from pathlib import Path

import aiohttp

from tasks.bundle.zip.directory import PADDING, count_files
from tasks.errors import (
    AccountRefused,
    ArchiveError,
    BundleTooLarge,
    Charge,
    ConnectionFailed,
    Fault,
    Forbidden,
    RateLimited,
    ServiceFailed,
    UnexpectedAnswer,
)
from tasks.memory.byte_budget import Reservation
from tasks.memory.spool import DownloadBuffer
from tasks.model.account import Account
from tasks.model.evaluation import Evaluation
from tasks.resilience.rate_headers import RateLimitHeaders, parse_rate_limit_headers
from tasks.riskos.content_disposition import names_other_evaluation, parse_filename
from tasks.riskos.content_encoding import decode_body
from tasks.riskos.error_body import MAX_BODY_BYTES, classify_error
from tasks.riskos.response import (
    Bundle,
    Denial,
    FetchResult,
    NoBundle,
    Response,
    WithheldBundle,
    known_media_type,
)
from tasks.telemetry import log_events, tracing
from worker.config.riskos_texts import GATEWAY_TEXTS, NO_DOCUMENTS_TEXTS

_EDGE_BYTES = 128 * 1024
_HEAD_BYTES, _END_BYTES = 1024, 1 << 20
_DEFAULT_WAIT = 1.0
_MAX_REQUEST_ID = 100
_MAX_REASON = 100
_MAX_RECORD_BYTES = 1 << 20
_ZIP_END = b"PK\x05\x06"
_ZIP_MAGIC = (b"PK\x03\x04", _ZIP_END)
_TEXT_TYPES = ("text/", "application/json", "application/xhtml", "application/xml", "application/problem+json")
_TRANSIENT = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY}
_ANSWERS = {HTTPStatus.OK, HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND}


@dataclass(frozen=True, slots=True)
class DownloadOptions:
    """The limits of a download. Times are in seconds, sizes in bytes.

    Attributes:
        connect: time to connect.
        read: longest silence within a response.
        total: time for the whole response.
        max_bundle_bytes: the largest bundle that is accepted.
        in_memory: a larger bundle is spooled to disk.
        spool_dir: the folder for spooled bundles; None for the system's folder for temporary files.
        no_documents_texts: error texts that mean "there are no documents".
        gateway_texts: error texts of gateways, which say nothing about an evaluation.
    """

    connect: float = 10.0
    read: float = 30.0
    total: float = 600.0
    max_bundle_bytes: int = 256 << 20
    in_memory: int = 8 << 20
    spool_dir: Path | None = None
    no_documents_texts: tuple[str, ...] = NO_DOCUMENTS_TEXTS
    gateway_texts: tuple[str, ...] = GATEWAY_TEXTS


@dataclass(frozen=True, slots=True)
class BundleHandling:
    """How to receive the bundle of one evaluation.

    Attributes:
        is_withheld: count the bundle while it arrives, and keep nothing of it.
        reservation: memory for the bundle; None if no budget bounds it.
    """

    is_withheld: bool = False
    reservation: Reservation | None = None


KEEP = BundleHandling()


@dataclass(frozen=True, slots=True)
class _Received:
    """A response whose headers have arrived; its body has been read only if it is a denial."""

    http: aiohttp.ClientResponse
    headers: RateLimitHeaders
    sent_at: float
    request_id: str | None
    denial: Denial | None


async def download(
    http: aiohttp.ClientSession,
    evaluation: Evaluation,
    account: Account,
    options: DownloadOptions,
    handling: BundleHandling = KEEP,
) -> Response[FetchResult | Denial]:
    """Send one request for the documents of an evaluation, and read the response.

    Raises:
        ServiceFailed: 408, 5xx.
        ConnectionFailed: no complete response arrived.
        UnexpectedAnswer: a redirect, a page, another evaluation's bundle.
        BundleTooLarge: the bundle is larger than the options allow.
        SpoolError: the bundle could not be spooled to disk.
    """
    async with _get(http, evaluation.url(account.url), account, options) as received:
        result = received.denial or await _read_result(received, evaluation, options, handling)
        return Response(result, received.headers, received.sent_at)


async def read_evaluation(
    http: aiohttp.ClientSession, evaluation: Evaluation, account: Account, options: DownloadOptions
) -> Response[bytes | Denial | None]:
    """Send one request for RiskOS's record of an evaluation; return its JSON, or None if it is missing or too large.

    Raises:
        ArchiveError: as ``download``.
    """
    async with _get(http, evaluation.record_url(account.url), account, options) as received:
        if received.denial:
            return Response(received.denial, received.headers, received.sent_at)
        body = await _read_body(received.http, _MAX_RECORD_BYTES + 1)
        is_record = received.http.status == HTTPStatus.OK and len(body) <= _MAX_RECORD_BYTES
        return Response(body if is_record else None, received.headers, received.sent_at)


async def check_access(
    http: aiohttp.ClientSession, evaluation: Evaluation, account: Account, options: DownloadOptions
) -> Response[Denial | None]:
    """Send the request of ``download``, but read only the status and the headers of the response.

    For the statuses 200, 400 and 404, the result is None.

    Raises:
        ArchiveError: as ``download`` for the other statuses.
    """
    with tracing.span("control", tracing.SpanKind.CLIENT):
        async with _get(http, evaluation.url(account.url), account, options) as received:
            return Response(received.denial, received.headers, received.sent_at)


@contextlib.asynccontextmanager
async def _get(
    http: aiohttp.ClientSession, url: str, account: Account, options: DownloadOptions
) -> AsyncIterator[_Received]:
    """Send one request; yield the response if its status is 200, 400 or 404, or RiskOS refuses the request."""
    timeout = aiohttp.ClientTimeout(total=options.total, sock_connect=options.connect, sock_read=options.read)
    sent_at, request_id = time.monotonic(), None
    log_events.bind_request_id(None)
    tracing.set_request("GET", url)
    try:
        with _translated():
            async with http.get(
                url,
                headers=headers_for(account),
                timeout=timeout,
                allow_redirects=False,
                proxy=account.proxy_url,
                auto_decompress=False,
            ) as response:
                request_id = _record_request_id(response.headers)
                tracing.set_attributes({"http.response.status_code": response.status})
                headers = parse_rate_limit_headers(response.headers, time.time())
                denial = await _read_denial(response, headers, request_id)
                yield _Received(response, headers, sent_at, request_id, denial)
    except ArchiveError as error:
        raise error.with_request_id(request_id) from None


async def _read_denial(
    response: aiohttp.ClientResponse, headers: RateLimitHeaders, request_id: str | None
) -> Denial | None:
    """Return the denial that a response is; None for the statuses 200, 400 and 404; raise for the others."""
    status = response.status
    if status in _ANSWERS:
        return None
    await _read_body(response, MAX_BODY_BYTES)  # so that the connection can be used again
    denial: Denial
    match status:
        case HTTPStatus.TOO_MANY_REQUESTS:
            denial = RateLimited(_DEFAULT_WAIT if headers.wait is None else headers.wait)
        case HTTPStatus.UNAUTHORIZED:
            denial = AccountRefused(status)
        case HTTPStatus.FORBIDDEN:
            denial = Forbidden(Charge.NOTHING)
        case _ if status in _TRANSIENT or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise ServiceFailed(status)
        case _:
            raise UnexpectedAnswer("RiskOS does not use this status", status)
    return denial.with_request_id(request_id)


def headers_for(account: Account) -> dict[str, str]:
    """Return the headers of every request (RiskOS documentation, "Image Retrieval")."""
    headers = {
        "User-Agent": _user_agent(),
        "Authorization": f"Bearer {account.key.get_secret_value()}",
        "Accept": "application/zip, application/json",
        "Accept-Encoding": "identity",
    }
    return headers | ({"X-API-Version": account.api_version} if account.api_version else {})


@cache
def _user_agent() -> str:
    return f"docv-archive/{version('docv-archive')}"


def _record_request_id(headers: Mapping[str, str]) -> str | None:
    """Return RiskOS's ID of the request in a form that is safe to keep, and add it to the log and the trace."""
    printable = (each for each in headers.get("X-Request-Id", "") if " " <= each <= "~")
    request_id = "".join(printable).strip()[:_MAX_REQUEST_ID] or None
    if request_id:
        log_events.bind_request_id(request_id)
        tracing.set_facts(request_id=request_id)
    return request_id


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """Translate the errors of aiohttp and the system into ours; their texts hold the URL, ours do not."""
    try:
        yield
    except TimeoutError:
        raise ConnectionFailed("timeout") from None
    except (aiohttp.ClientConnectorError, aiohttp.ClientHttpProxyError) as error:
        raise ConnectionFailed(_describe_refusal(error), Fault.MACHINE) from None
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise ConnectionFailed(type(error).__name__) from None


def _describe_refusal(error: aiohttp.ClientConnectorError | aiohttp.ClientHttpProxyError) -> str:
    """Return the kind of an error, and the reason that the proxy, TLS or the system gives.

    aiohttp's own text holds the address.
    """
    if status := getattr(error, "status", None):
        return f"{type(error).__name__} {status}"
    os_error = getattr(error, "os_error", None)
    number = getattr(os_error, "errno", None) or 0
    reason = getattr(os_error, "verify_message", None) or getattr(os_error, "reason", None)
    reason = reason or (os.strerror(number) if number > 0 else None)
    return f"{type(error).__name__}, {reason[:_MAX_REASON]}" if reason else type(error).__name__


async def _read_result(
    received: _Received, evaluation: Evaluation, options: DownloadOptions, handling: BundleHandling
) -> FetchResult:
    response = received.http
    if response.status == HTTPStatus.OK:
        bundle = await _read_bundle(response, evaluation, options, handling)
        return replace(bundle, request_id=received.request_id)
    body = await _read_body(response, MAX_BODY_BYTES)
    return replace(_interpret_error(response, body, options), request_id=received.request_id)


async def _read_bundle(
    response: aiohttp.ClientResponse, evaluation: Evaluation, options: DownloadOptions, handling: BundleHandling
) -> Bundle | WithheldBundle:
    filename = parse_filename(response.headers.get("Content-Disposition"))
    if names_other_evaluation("; ".join(response.headers.getall("Content-Disposition", ())), evaluation.eval_id):
        raise UnexpectedAnswer("the file is named for another evaluation", response.status)
    if handling.is_withheld:
        return await _count_bundle(response, options)
    buffer = DownloadBuffer(options.in_memory, options.spool_dir, handling.reservation)
    with contextlib.closing(buffer) as incoming:
        if response.content_length:
            await incoming.expect(min(response.content_length, options.max_bundle_bytes))
        async for chunk in _chunks(response, options):
            await incoming.add(chunk)
        data, sha256 = await incoming.whole()
    _check_is_zip(response, bytes(data[:_EDGE_BYTES]), bytes(data[-_EDGE_BYTES:]), len(data))
    return Bundle(filename=filename, data=data, sha256=sha256, size=len(data))


async def _count_bundle(response: aiohttp.ClientResponse, options: DownloadOptions) -> WithheldBundle:
    """Count a bundle while it arrives. Only its end, with the ZIP's directory, stays in memory; nothing is on disk."""
    head, tail, size = b"", bytearray(), 0
    async for chunk in _chunks(response, options):
        head += chunk[: _HEAD_BYTES - len(head)]
        tail += chunk
        del tail[:-_END_BYTES]
        size += len(chunk)
    _check_is_zip(response, head, bytes(tail), size)
    return WithheldBundle(size=size, documents=count_files(memoryview(tail)))


def _decoded(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    return decode_body(response.content.iter_any(), response.headers.getall("Content-Encoding", ()))


async def _chunks(response: aiohttp.ClientResponse, options: DownloadOptions) -> AsyncIterator[bytes]:
    size = 0
    async for chunk in _decoded(response):
        size += len(chunk)
        if size > options.max_bundle_bytes:
            raise BundleTooLarge(options.max_bundle_bytes)
        yield chunk


def _check_is_zip(response: aiohttp.ClientResponse, head: bytes, tail: bytes, size: int) -> None:
    """Raise if the body never was a ZIP but a page or a message; ``unpack`` detects a damaged ZIP."""
    if head.lstrip(PADDING)[: len(_ZIP_END)] in _ZIP_MAGIC:
        return
    looks_like_text = head.lstrip()[:1] in {b"", b"<", b"{"} and _ZIP_END not in tail
    if looks_like_text or response.content_type.startswith(_TEXT_TYPES):
        media_type = known_media_type(response.content_type)
        raise UnexpectedAnswer(f"not a ZIP but {media_type}, {size} bytes", response.status)


async def _read_body(response: aiohttp.ClientResponse, max_bytes: int) -> bytes:
    """Return the first bytes of the body, at most ``max_bytes``."""
    body = bytearray()
    async for chunk in _decoded(response):
        body += chunk
        if len(body) > max_bytes:
            break
    return bytes(body[:max_bytes])


def _interpret_error(response: aiohttp.ClientResponse, body: bytes, options: DownloadOptions) -> NoBundle:
    no_bundle = classify_error(response.status, body, response.charset, options)
    if no_bundle is None:
        # It comes from a gateway or from a wrong DOCV_RISKOS_URL, and says nothing about the evaluation.
        what = f"not an error of RiskOS ({known_media_type(response.content_type)}, {len(body)} bytes)"
        raise UnexpectedAnswer(what, response.status)
    return no_bundle
