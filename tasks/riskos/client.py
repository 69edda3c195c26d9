"""Ask for a bundle with a permit, and obey what RiskOS says of the account.

The quick retries live here: each of them waits for a permit like any other request.
"""

import time
from dataclasses import dataclass
from http import HTTPStatus

import aiohttp

from tasks.errors import AccountRefused, ArchiveError, BundleTooLarge, RateLimited, RetryableError
from tasks.model.account import Account
from tasks.model.evaluation import Evaluation
from tasks.model.job import Queue
from tasks.resilience.adaptive_rate import AdaptiveRate
from tasks.resilience.circuit_breaker import CircuitBreaker
from tasks.resilience.holds import KEY_BACKOFF, Holds, Reason
from tasks.resilience.rate_headers import RateLimitHeaders
from tasks.resilience.rate_limiter import RateLimiter
from tasks.resilience.retry import RetryPolicy, retry_quickly
from tasks.riskos.download import DownloadOptions, download
from tasks.riskos.response import FetchResult, NoBundle
from tasks.telemetry.tracing import span
from worker.metrics.worker_metrics import Step, count_request, observe_step, timed

_MAX_RATE_LIMITED = 5


@dataclass(frozen=True, slots=True)
class RiskOSClient:
    """The client of RiskOS: one session, one account, and the rules they keep."""

    http: aiohttp.ClientSession
    account: Account
    rate_limiter: RateLimiter
    holds: Holds
    adaptive_rate: AdaptiveRate
    breaker: CircuitBreaker
    options: DownloadOptions
    retry_policy: RetryPolicy


async def fetch(client: RiskOSClient, evaluation: Evaluation, queue: Queue) -> FetchResult:
    """Return RiskOS's answer about an evaluation, after quick retries where they may help.

    Raises:
        RetryableError: it failed also when asked again.
        BlockedError: the account has to wait.
        BundleTooLarge: the bundle is larger than it may be.
    """
    async for attempt in retry_quickly(client.retry_policy):
        with attempt:
            return await _fetch_with_permit(client, evaluation, queue)
    raise AssertionError("the loop ends by returning or raising")


async def _fetch_with_permit(client: RiskOSClient, evaluation: Evaluation, queue: Queue) -> FetchResult:
    account, wait = client.account, 0.0
    for _ in range(_MAX_RATE_LIMITED):
        started = time.monotonic()
        with span("rate_limit"):
            probe = await client.rate_limiter.acquire(account, queue)
        observe_step(Step.RATE_LIMIT, time.monotonic() - started)
        words: list[RateLimitHeaders] = []
        try:
            answer = await _send(client, evaluation, words)
        except RateLimited:
            wait = await client.adaptive_rate.on_rate_limited(words[-1], probe=probe)
            client.rate_limiter.set_hold(account.name, wait)
        except AccountRefused as error:
            reason = Reason(str(error.status))
            wait = await client.holds.place_until_probe(account.name, reason, error.what, KEY_BACKOFF, probe=probe)
            client.rate_limiter.set_hold(account.name, wait)
            raise AccountRefused(error.status, wait) from None
        except RetryableError as error:
            error.probe = probe
            raise
        except BundleTooLarge:
            if probe:
                await _end_hold(client)  # it was an answer
            raise
        else:
            client.adaptive_rate.on_success()
            if probe:
                await _end_hold(client)
            client.rate_limiter.set_hold(
                account.name, await client.adaptive_rate.on_headers(words[-1], time.monotonic())
            )
            return answer
    raise RateLimited(wait)


async def _send(client: RiskOSClient, evaluation: Evaluation, headers: list[RateLimitHeaders]) -> FetchResult:
    """Send the request; count how long it took, and what came of it."""
    try:
        with timed(Step.DOWNLOAD), span("download"):
            answer = await download(client.http, evaluation, client.account, client.options, headers.append)
    except ArchiveError as error:
        count_request(_status_of(error), 0)
        raise
    if isinstance(answer, NoBundle):
        count_request(answer.status, 0)
    else:
        count_request(HTTPStatus.OK, len(answer.data))
    return answer


def _status_of(error: ArchiveError) -> int | None:
    match error:
        case RateLimited():
            return HTTPStatus.TOO_MANY_REQUESTS
        case BundleTooLarge():
            return HTTPStatus.OK
        case AccountRefused() | RetryableError():
            return error.status
    return None


async def _end_hold(client: RiskOSClient) -> None:
    """The probe was answered: end the hold that it was for."""
    name = client.account.name
    hold = await client.holds.get(name)
    await client.holds.end_after_probe(name)
    await client.breaker.reset(name)
    if hold:
        await client.adaptive_rate.on_hold_ended(hold)
