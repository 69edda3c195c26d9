"""Ask for a bundle when it is our turn, and obey what RiskOS says of the account.

The quick retries live here: each of them waits its turn like any other request.
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
from tasks.resilience.holds import KEY_PAUSES, Holds, Reason
from tasks.resilience.rate_headers import RateLimitHeaders
from tasks.resilience.rate_limiter import RateLimiter
from tasks.resilience.retry import RetryPolicy, quick
from tasks.riskos.download import DownloadOptions, download
from tasks.riskos.response import FetchResult, NoBundle
from tasks.telemetry.metrics import NULL_METRICS, Metrics, Step, timed
from tasks.telemetry.tracing import span

_SLOW_DOWNS = 5


@dataclass(frozen=True, slots=True)
class RiskOSClient:
    """The line to RiskOS: one session, one account, and the rules they keep."""

    http: aiohttp.ClientSession
    account: Account
    turns: RateLimiter
    holds: Holds
    pace: AdaptiveRate
    breaker: CircuitBreaker
    terms: DownloadOptions
    policy: RetryPolicy
    figures: Metrics = NULL_METRICS


async def request(line: RiskOSClient, evaluation: Evaluation, queue: Queue) -> FetchResult:
    """Return RiskOS's answer about an evaluation, after quick retries where they may help.

    Raises:
        RetryableError: it failed also when asked again.
        BlockedError: the account has to wait.
        BundleTooLarge: the bundle is larger than it may be.
    """
    async for attempt in quick(line.policy):
        with attempt:
            return await _in_turn(line, evaluation, queue)
    raise AssertionError("the loop ends by returning or raising")


async def _in_turn(line: RiskOSClient, evaluation: Evaluation, queue: Queue) -> FetchResult:
    account, wait = line.account, 0.0
    for _ in range(_SLOW_DOWNS):
        began = time.monotonic()
        with span("turn"):
            probe = await line.turns.wait(account, queue)
        line.figures.took(Step.TURN, time.monotonic() - began)
        words: list[RateLimitHeaders] = []
        try:
            answer = await _answer(line, evaluation, words)
        except RateLimited:
            wait = await line.pace.limited(words[-1], probe=probe)
            line.turns.notice(account.name, wait)
        except AccountRefused as error:
            reason = Reason.of_status(error.status)
            wait = await line.holds.until_probed(account.name, reason, error.what, KEY_PAUSES, probe=probe)
            line.turns.notice(account.name, wait)
            raise AccountRefused(error.status, wait) from None
        except RetryableError as error:
            error.probe = probe
            raise
        except BundleTooLarge:
            if probe:
                await _well_again(line)  # it was an answer
            raise
        else:
            line.pace.went_well()
            if probe:
                await _well_again(line)
            line.turns.notice(account.name, await line.pace.hear(words[-1], time.monotonic()))
            return answer
    raise RateLimited(wait)


async def _answer(line: RiskOSClient, evaluation: Evaluation, words: list[RateLimitHeaders]) -> FetchResult:
    """Send the request; count how long it took, and what came of it."""
    try:
        with timed(line.figures, Step.DOWNLOAD), span("download"):
            answer = await download(line.http, evaluation, line.account, line.terms, words.append)
    except ArchiveError as error:
        line.figures.answered(_status_of(error), 0)
        raise
    if isinstance(answer, NoBundle):
        line.figures.answered(answer.status, 0)
    else:
        line.figures.answered(HTTPStatus.OK, len(answer.data))
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


async def _well_again(line: RiskOSClient) -> None:
    """The probe was answered: end the hold that it was for."""
    name = line.account.name
    hold = await line.holds.of(name)
    await line.holds.recovered(name)
    await line.breaker.forget(name)
    if hold:
        await line.pace.came_back(hold)
