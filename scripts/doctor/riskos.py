"""Examine the way to RiskOS: name, port, TLS, clock, and whether the key is accepted.

The last is found out with one request for an evaluation that does not exist, sent as a worker would send it.
"""

import asyncio
import contextlib
import email.utils
import socket
import ssl
import time
from collections.abc import AsyncIterator, Mapping
from http import HTTPStatus
from urllib.parse import urlsplit
from uuid import uuid4

import aiohttp
from redis.exceptions import RedisError

from scripts.doctor.finding import Finding, fine, warning, wrong
from tasks.errors import AccountHeld
from tasks.model.account import Account
from tasks.model.evaluation import Evaluation
from tasks.model.job import Queue
from tasks.resilience.rate_headers import parse_rate_limit_headers
from tasks.resilience.rate_limiter import RateLimiter
from tasks.riskos.download import headers_for
from tasks.riskos.error_body import MAX_BODY_BYTES, KnownTexts, classify_refusal
from worker.clients.redis import open_redis
from worker.config.accounts_file import AccountSettings
from worker.config.settings import Settings

_SECONDS = 10.0
_DAYS = 14
_DAY = 86_400
_CLOCK_WARNING, _CLOCK_WRONG = 30.0, 300.0
_REFUSED = {
    401: ("401: the key is not accepted", "see the key of this account, and that it belongs to its environment"),
    403: ("403: the key may not do this", "ask the vendor for the permission, and about this IP address"),
}
_ZIP = b"PK\x03\x04"
_ASKING = "key at RiskOS"
NETWORK = "see the network, the proxy and DOCV_RISKOS_URL"
"""What to do when no answer comes."""


async def examine(account: AccountSettings) -> AsyncIterator[Finding]:
    """Yield what there is to say of RiskOS, asked with an account."""
    settings = account.settings
    url = urlsplit(settings.base_url)
    host, port = url.hostname or "", url.port or (443 if url.scheme == "https" else 80)
    connected = await _connect(host, port)
    yield connected
    if connected.unreachable:
        return
    if url.scheme == "https":
        yield await _tls(host, port, settings)
    if settings.api_key is not None:
        async for finding in _send_probe(account):
            yield finding


async def _connect(host: str, port: int) -> Finding:
    what = "RiskOS"
    try:
        await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError:
        return wrong(what, f"{host} has no address", "see DNS and DOCV_RISKOS_URL", unreachable=True)
    try:
        async with asyncio.timeout(_SECONDS):
            _, writer = await asyncio.open_connection(host, port)
    except OSError as error:
        return wrong(what, f"{host}:{port} does not answer ({type(error).__name__})", NETWORK, unreachable=True)
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return fine(what, f"{host}:{port} answers")


async def _tls(host: str, port: int, settings: Settings) -> Finding:
    try:
        async with asyncio.timeout(_SECONDS):
            _, writer = await asyncio.open_connection(host, port, ssl=_context(settings))
    except ssl.SSLError as error:
        why = getattr(error, "verify_message", "") or error.reason or type(error).__name__
        return wrong(
            "TLS", f"no trust in {host}: {why}", "see the certificate authorities of this machine, and the proxy"
        )
    except OSError as error:
        return wrong("TLS", f"it breaks off ({type(error).__name__})", NETWORK)
    tls = writer.get_extra_info("ssl_object")
    version, certificate = tls.version(), tls.getpeercert()
    writer.close()
    return judge_certificate(version, ssl.cert_time_to_seconds(certificate["notAfter"]), time.time())


def _context(settings: Settings) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if settings.client_cert:
        context.load_cert_chain(settings.client_cert, settings.client_key)
    return context


def judge_certificate(version: str, ends: float, now: float) -> Finding:
    """Return how long the certificate is still valid; times are seconds since the epoch."""
    days = int((ends - now) // _DAY)
    said = f"{version}, certificate valid for another {days} days"
    return fine("TLS", said) if days >= _DAYS else warning("TLS", said, "it is RiskOS's, or your proxy's, to renew it")


async def _send_probe(known: AccountSettings) -> AsyncIterator[Finding]:
    settings, account = known.settings, Account.from_settings(known)
    held = await acquire_permit(settings, account, _ASKING)
    if held:
        yield held
        return
    url = Evaluation(str(uuid4()), settings.environment).url(account.url)
    try:
        async with (
            open_session(settings) as http,
            http.get(url, headers=headers_for(account), allow_redirects=False) as response,
        ):
            yield judge_clock(response.headers.get("Date", ""), time.time())
            yield judge_answer(response.status, response.headers, await response.content.read(MAX_BODY_BYTES), settings)
    except (TimeoutError, aiohttp.ClientError) as error:
        yield wrong(_ASKING, f"no answer came ({type(error).__name__})", NETWORK, unreachable=True)


def open_session(settings: Settings, trace: aiohttp.TraceConfig | None = None) -> aiohttp.ClientSession:
    """Open a session to RiskOS whose requests take at most ten seconds."""
    timeout, connector = aiohttp.ClientTimeout(total=_SECONDS), aiohttp.TCPConnector(ssl=_context(settings))
    return aiohttp.ClientSession(timeout=timeout, connector=connector, trace_configs=[trace] if trace else None)


async def acquire_permit(settings: Settings, account: Account, subject: str) -> Finding | None:
    """Acquire a permit where workers acquire theirs; return a finding about the subject if there is none."""
    if settings.redis_url is None:
        return None
    # Redis is examined by itself.
    with contextlib.suppress(OSError, RedisError):
        async with open_redis(settings.need_redis_url(), seconds=5.0, retries=1) as redis:
            try:
                async with asyncio.timeout(_SECONDS):
                    await RateLimiter(redis).acquire(account, Queue.LIVE)
            except AccountHeld as error:
                return warning(subject, f"not asked: {error}", "see `docv-archive status`; `resume` ends a hold")
    return None


def judge_clock(date: str, now: float) -> Finding:
    """Return whether our clock agrees with the ``Date`` of an answer; ``now`` is seconds since the epoch."""
    try:
        apart = abs(email.utils.parsedate_to_datetime(date).timestamp() - now)
    except (ValueError, TypeError):
        return warning("clock", "the answer has no Date to compare it with", "see that this machine keeps time (NTP)")
    said, mend = f"{apart:.0f} s apart from RiskOS", "let this machine keep time (NTP)"
    if apart > _CLOCK_WRONG:
        return wrong("clock", said, mend)
    return warning("clock", said, mend) if apart > _CLOCK_WARNING else fine("clock", said)


def judge_answer(status: int, headers: Mapping[str, str], body: bytes, texts: KnownTexts) -> Finding:
    """Return what the answer about an evaluation that does not exist says of the key."""
    if status in _REFUSED:
        return wrong(_ASKING, *_REFUSED[status])
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return _judge_rate_limited(headers, body)
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return warning(_ASKING, f"{status}: RiskOS has a fault", "try again later")
    if status == HTTPStatus.OK and body.startswith(_ZIP):
        return warning(_ASKING, "it has documents of an evaluation that does not exist", "is it a simulator?")
    if classify_refusal(status, body, None, texts) is None:
        return wrong(_ASKING, f"status {status}, and not as RiskOS answers", "see DOCV_RISKOS_URL and the proxy")
    return fine(_ASKING, f"accepted ({status} for an evaluation that does not exist)")


def _judge_rate_limited(headers: Mapping[str, str], body: bytes) -> Finding:
    word = parse_rate_limit_headers(headers, time.time())
    if word.is_blocked or b"not activated" in body.lower():
        return wrong(_ASKING, "429: the account may send 0 requests a second", "have the vendor activate the account")
    return warning(
        _ASKING, "429: the rate or the day's quota is spent", "see DOCV_RATE and DOCV_DAILY_QUOTA; try later"
    )
