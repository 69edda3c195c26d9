"""Check the connection to RiskOS: name, port, TLS, clock, and whether the key is accepted.

The key is checked by one request for an evaluation that does not exist, sent as a worker sends it.
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
from tasks.riskos.error_body import MAX_BODY_BYTES, KnownTexts, classify_error
from worker.clients.redis import open_redis
from worker.clients.tls import make_tls_context
from worker.config.accounts_file import AccountSettings
from worker.config.proxy import proxy_address
from worker.config.settings import Settings, SettingsError

_SECONDS = 10.0
_DAYS = 14
_DAY = 86_400
_CLOCK_WARNING, _CLOCK_WRONG = 30.0, 300.0
_REFUSED = {
    401: ("401: the key is not accepted", "check the key of this account, and that it belongs to its environment"),
    403: ("403: the key lacks permission", "ask the vendor for the permission, and about this IP address"),
}
_ZIP = b"PK\x03\x04"
_ASKING = "key at RiskOS"
_RESOLVE = {"RiskOS": "check DNS and DOCV_RISKOS_URL", "proxy": "check DNS, DOCV_PROXY, HTTPS_PROXY and NO_PROXY"}
NETWORK = "check the network, the proxy and DOCV_RISKOS_URL"
"""The fix if no answer arrives."""


async def examine(account: AccountSettings) -> AsyncIterator[Finding]:
    """Yield the findings about RiskOS, requested with an account."""
    settings = account.settings
    url = urlsplit(settings.base_url)
    host, port = url.hostname or "", url.port or (443 if url.scheme == "https" else 80)
    try:
        context, proxy = make_tls_context(settings), settings.find_proxy()
    except SettingsError as error:
        yield wrong("RiskOS", str(error), "fix the setting, or remove it", unreachable=True)
        return
    connected = await (_connect("RiskOS", host, port) if proxy is None else _connect("proxy", *proxy_address(proxy)))
    yield connected
    if connected.unreachable:
        return
    if url.scheme == "https" and proxy is None:
        yield await _check_tls(host, port, context)
    if settings.api_key is not None:
        async for finding in _send_probe(account):
            yield finding


async def _connect(what: str, host: str, port: int) -> Finding:
    try:
        await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError:
        return wrong(what, f"{host} cannot be resolved", _RESOLVE[what], unreachable=True)
    try:
        async with asyncio.timeout(_SECONDS):
            _, writer = await asyncio.open_connection(host, port)
    except OSError as error:
        return wrong(what, f"{host}:{port} does not answer ({type(error).__name__})", NETWORK, unreachable=True)
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return fine(what, f"{host}:{port} answers" + (", and requests to RiskOS go through it" if what == "proxy" else ""))


async def _check_tls(host: str, port: int, context: ssl.SSLContext) -> Finding:
    try:
        async with asyncio.timeout(_SECONDS):
            _, writer = await asyncio.open_connection(host, port, ssl=context)
    except ssl.SSLError as error:
        return _judge_untrusted(host, error)
    except OSError as error:
        return wrong("TLS", f"the connection failed ({type(error).__name__})", NETWORK)
    tls = writer.get_extra_info("ssl_object")
    version, certificate = tls.version(), tls.getpeercert()
    writer.close()
    return judge_certificate(version, ssl.cert_time_to_seconds(certificate["notAfter"]), time.time())


def _judge_untrusted(host: str, error: Exception) -> Finding:
    why = getattr(error, "verify_message", "") or getattr(error, "reason", "") or type(error).__name__
    return wrong(
        "TLS",
        f"the certificate of {host} is not trusted: {why}",
        "check the certificate authorities of this machine, and the proxy",
    )


def judge_certificate(version: str, ends: float, now: float) -> Finding:
    """Return how long the certificate is still valid; times are seconds since the epoch."""
    days = int((ends - now) // _DAY)
    message = f"{version}, certificate valid for another {days} days"
    return (
        fine("TLS", message)
        if days >= _DAYS
        else warning("TLS", message, "the operator of RiskOS or of your proxy must renew it")
    )


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
            http.get(url, headers=headers_for(account), allow_redirects=False, proxy=account.proxy_url) as response,
        ):
            yield judge_clock(response.headers.get("Date", ""), time.time())
            yield judge_answer(response.status, response.headers, await response.content.read(MAX_BODY_BYTES), settings)
    except aiohttp.ClientHttpProxyError as error:
        yield judge_proxy(error.status, urlsplit(account.url).hostname or "")
    except (aiohttp.ClientConnectorCertificateError, aiohttp.ClientConnectorSSLError) as error:
        is_certificate = isinstance(error, aiohttp.ClientConnectorCertificateError)
        yield _judge_untrusted(error.host, error.certificate_error if is_certificate else error.os_error)
    except (TimeoutError, aiohttp.ClientError) as error:
        yield wrong(_ASKING, f"no answer ({type(error).__name__})", NETWORK, unreachable=True)


def judge_proxy(status: int, host: str) -> Finding:
    """Return the finding for a proxy that refuses to connect to RiskOS."""
    if status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
        fix = "put user and password into its URL: DOCV_PROXY=http://user:password@host:port"
        return wrong("proxy", "407: it requires user and password, or does not accept them", fix, unreachable=True)
    return wrong(
        "proxy", f"{status}: it refuses to connect to {host}", f"allow {host}:443 on the proxy", unreachable=True
    )


def open_session(settings: Settings, trace: aiohttp.TraceConfig | None = None) -> aiohttp.ClientSession:
    """Open a session to RiskOS whose requests take at most ten seconds."""
    timeout, connector = aiohttp.ClientTimeout(total=_SECONDS), aiohttp.TCPConnector(ssl=make_tls_context(settings))
    return aiohttp.ClientSession(timeout=timeout, connector=connector, trace_configs=[trace] if trace else None)


async def acquire_permit(settings: Settings, account: Account, subject: str) -> Finding | None:
    """Acquire a permit from the rate limiter of the workers; return a finding about the subject if none is granted."""
    if settings.redis_url is None:
        return None
    # Another check reports problems of Redis.
    with contextlib.suppress(OSError, RedisError):
        async with open_redis(settings.need_redis_url(), seconds=5.0, retries=1) as redis:
            try:
                async with asyncio.timeout(_SECONDS):
                    await RateLimiter(redis).acquire(account, Queue.LIVE)
            except AccountHeld as error:
                return warning(subject, f"not asked: {error}", "run `docv-archive status`; `resume` ends a hold")
    return None


def judge_clock(date: str, now: float) -> Finding:
    """Return whether our clock agrees with the ``Date`` of an answer; ``now`` is seconds since the epoch."""
    try:
        apart = abs(email.utils.parsedate_to_datetime(date).timestamp() - now)
    except (ValueError, TypeError):
        return warning(
            "clock",
            "the answer has no Date header to compare with",
            "make sure that this machine's clock is synchronized (NTP)",
        )
    message, fix = f"{apart:.0f} s apart from RiskOS", "synchronize this machine's clock (NTP)"
    if apart > _CLOCK_WRONG:
        return wrong("clock", message, fix)
    return warning("clock", message, fix) if apart > _CLOCK_WARNING else fine("clock", message)


def judge_answer(status: int, headers: Mapping[str, str], body: bytes, texts: KnownTexts) -> Finding:
    """Return whether the key is accepted, judged by the answer about an evaluation that does not exist."""
    if status in _REFUSED:
        return wrong(_ASKING, *_REFUSED[status])
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return _judge_rate_limited(headers, body)
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return warning(_ASKING, f"{status}: RiskOS failed", "try again later")
    if status == HTTPStatus.OK and body.startswith(_ZIP):
        return warning(_ASKING, "it returned documents for an evaluation that does not exist", "is it a simulator?")
    if classify_error(status, body, None, texts) is None:
        return wrong(
            _ASKING,
            f"an answer with status {status} that did not come from RiskOS",
            "check DOCV_RISKOS_URL and the proxy",
        )
    return fine(_ASKING, f"accepted ({status} for an evaluation that does not exist)")


def _judge_rate_limited(headers: Mapping[str, str], body: bytes) -> Finding:
    limit = parse_rate_limit_headers(headers, time.time())
    if limit.is_blocked or b"not activated" in body.lower():
        return wrong(
            _ASKING, "429: the account may send 0 requests per second", "ask the vendor to activate the account"
        )
    return warning(
        _ASKING, "429: the rate or the day's quota is spent", "check DOCV_RATE and DOCV_DAILY_QUOTA; try again later"
    )
