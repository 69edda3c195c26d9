"""Ask RiskOS for an evaluation's documents: evaluation → bundle, or the reason why there is none.

The statuses are those of RiskOS's documentation ("Image Retrieval") and of its OpenAPI file.
"""

import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from http import HTTPStatus
from importlib.metadata import version
from pathlib import Path

import aiohttp

from tasks.errors import (
    AccountRefused,
    ArchiveError,
    BundleTooLarge,
    Charge,
    ConnectionFailed,
    Forbidden,
    RateLimited,
    ServiceFailed,
    UnexpectedAnswer,
)
from tasks.memory.buffer_pool import Buffer
from tasks.memory.spool import DownloadBuffer
from tasks.model.account import Account
from tasks.model.evaluation import Evaluation
from tasks.resilience.rate_headers import RateLimitHeaders, parse_rate_limit_headers
from tasks.riskos.content_disposition import names_other_evaluation, parse_filename
from tasks.riskos.error_body import MAX_BODY_BYTES, classify_refusal
from tasks.riskos.response import Bundle, FetchResult, NoBundle
from tasks.telemetry import log_events, tracing
from worker.config.riskos_texts import GATEWAY_TEXTS, NO_DOCUMENTS_TEXTS

_EDGE_BYTES = 128 * 1024
_DEFAULT_WAIT = 1.0
_MAX_REQUEST_ID = 100
_ZIP_END = b"PK\x05\x06"
_ZIP_MAGIC = (b"PK\x03\x04", _ZIP_END)
_TEXT_TYPES = ("text/", "application/json", "application/xhtml", "application/xml", "application/problem+json")
_TRANSIENT = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY}


@dataclass(frozen=True, slots=True)
class DownloadOptions:
    """How a download is made. Times are in seconds, sizes in bytes.

    Attributes:
        connect: time to connect.
        read: longest silence within an answer.
        total: time for the whole answer.
        max_bundle_bytes: largest bundle.
        in_memory: a larger bundle is spooled.
        spool_dir: where to; the system's folder for temporary files where it is None.
        no_documents_texts: error texts that mean "there are no documents".
        gateway_texts: error texts of gateways, which say nothing of an evaluation.
    """

    connect: float = 10.0
    read: float = 30.0
    total: float = 600.0
    max_bundle_bytes: int = 256 << 20
    in_memory: int = 8 << 20
    spool_dir: Path | None = None
    no_documents_texts: tuple[str, ...] = NO_DOCUMENTS_TEXTS
    gateway_texts: tuple[str, ...] = GATEWAY_TEXTS


async def download(
    http: aiohttp.ClientSession,
    evaluation: Evaluation,
    account: Account,
    options: DownloadOptions,
    on_headers: Callable[[RateLimitHeaders], None] = lambda _: None,
) -> FetchResult:
    """Send one request and read its answer.

    Args:
        on_headers: called with what the answer's headers say of the rate, as soon as they are there.

    Raises:
        RateLimited: 429.
        AccountRefused: 401.
        Forbidden: 403.
        ServiceFailed: 408, 5xx.
        ConnectionFailed: no whole answer came back.
        UnexpectedAnswer: a redirect, a page, another evaluation's bundle.
        BundleTooLarge: it is larger than it may be.
    """
    async with _get(http, evaluation, account, options, on_headers) as (response, request_id):
        if response.status == HTTPStatus.OK:
            return replace(await _read_bundle(response, evaluation, options), request_id=request_id)
        body = await _read_error_body(response)
        return replace(_interpret_refusal(response, body, options), request_id=request_id)


async def check_access(
    http: aiohttp.ClientSession,
    evaluation: Evaluation,
    account: Account,
    options: DownloadOptions,
    on_headers: Callable[[RateLimitHeaders], None],
) -> None:
    """Send the request of ``download``, and read only the headers of its answer.

    Raises:
        ArchiveError: what ``download`` raises for the status; none for 200, 400 and 404, which are answers.
    """
    async with _get(http, evaluation, account, options, on_headers):
        pass


@contextlib.asynccontextmanager
async def _get(
    http: aiohttp.ClientSession,
    evaluation: Evaluation,
    account: Account,
    options: DownloadOptions,
    on_headers: Callable[[RateLimitHeaders], None],
) -> AsyncIterator[tuple[aiohttp.ClientResponse, str | None]]:
    """Send one request; yield its answer, and RiskOS's ID of the request, if the status is 200, 400 or 404."""
    timeout = aiohttp.ClientTimeout(total=options.total, sock_connect=options.connect, sock_read=options.read)
    request_id = None
    log_events.bind_request_id(None)
    try:
        with _translated():
            async with http.get(
                evaluation.url(account.url), headers=headers_for(account), timeout=timeout, allow_redirects=False
            ) as response:
                request_id = _record_request_id(response.headers)
                headers = parse_rate_limit_headers(response.headers, time.time())
                on_headers(headers)
                if response.status not in {HTTPStatus.OK, HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND}:
                    await _read_error_body(response)  # so that the connection can be used again
                    raise _error_for(response.status, headers)
                yield response, request_id
    except ArchiveError as error:
        error.request_id = request_id
        raise


def _error_for(status: int, headers: RateLimitHeaders) -> ArchiveError:
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return RateLimited(_DEFAULT_WAIT if headers.wait is None else headers.wait)
    if status == HTTPStatus.UNAUTHORIZED:
        return AccountRefused(status)
    if status == HTTPStatus.FORBIDDEN:
        return Forbidden(Charge.NOTHING)
    if status in _TRANSIENT or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return ServiceFailed(status)
    return UnexpectedAnswer("RiskOS does not answer so", status)


def headers_for(account: Account) -> dict[str, str]:
    """Return what is sent with each request (RiskOS documentation, "Image Retrieval")."""
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
    """Return RiskOS's ID of the request, in a form that is safe to keep, and put it into the log and the trace."""
    printable = (each for each in headers.get("X-Request-Id", "") if " " <= each <= "~")
    request_id = "".join(printable).strip()[:_MAX_REQUEST_ID] or None
    if request_id:
        log_events.bind_request_id(request_id)
        tracing.set_facts(request_id=request_id)
    return request_id


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """Turn what aiohttp and the system raise into our errors; their texts hold the URL, ours do not."""
    try:
        yield
    except TimeoutError:
        raise ConnectionFailed("timeout") from None
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise ConnectionFailed(type(error).__name__) from None


async def _read_bundle(response: aiohttp.ClientResponse, evaluation: Evaluation, options: DownloadOptions) -> Bundle:
    filename = parse_filename(response.headers.get("Content-Disposition"))
    if names_other_evaluation("; ".join(response.headers.getall("Content-Disposition", ())), evaluation.eval_id):
        raise UnexpectedAnswer("the file is named for another evaluation", response.status)
    with contextlib.closing(DownloadBuffer(options.in_memory, options.spool_dir)) as incoming:
        async for chunk in response.content.iter_any():
            await incoming.add(chunk)
            if incoming.size > options.max_bundle_bytes:
                raise BundleTooLarge(options.max_bundle_bytes)
        data, sha256 = await incoming.whole()
    if _is_not_zip(response.content_type, data):
        raise UnexpectedAnswer(f"no ZIP but {response.content_type}, {len(data)} bytes", response.status)
    return Bundle(filename=filename, data=data, sha256=sha256, size=len(data))


def _is_not_zip(content_type: str, data: Buffer) -> bool:
    """Return whether this never was a ZIP but a page or a message; a damaged ZIP is for ``unpack`` to tell."""
    if bytes(data[: len(_ZIP_END)]) in _ZIP_MAGIC:
        return False
    head, tail = bytes(data[:_EDGE_BYTES]), bytes(data[-_EDGE_BYTES:])
    looks_like_text = head.lstrip()[:1] in {b"", b"<", b"{"} and _ZIP_END not in tail
    return looks_like_text or content_type.startswith(_TEXT_TYPES)


async def _read_error_body(response: aiohttp.ClientResponse) -> bytes:
    """Return the body, but no more of it than an error needs."""
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            break
    return bytes(body[:MAX_BODY_BYTES])


def _interpret_refusal(response: aiohttp.ClientResponse, body: bytes, options: DownloadOptions) -> NoBundle:
    refusal = classify_refusal(response.status, body, response.charset, options)
    if refusal is None:
        # It comes from something in between, or from a wrong DOCV_RISKOS_URL, and says nothing of the evaluation.
        what = f"not an error of RiskOS ({response.content_type}, {len(body)} bytes)"
        raise UnexpectedAnswer(what, response.status)
    return refusal
