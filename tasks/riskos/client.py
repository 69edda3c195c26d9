"""Ask for a bundle with a permit, and obey what RiskOS says of the account.

The quick retries live here: each of them waits for a permit like any other request.
"""

import time
from dataclasses import dataclass, replace
from http import HTTPStatus

import aiohttp

from tasks.errors import (
    AccountRefused,
    ArchiveError,
    BundleTooLarge,
    Charge,
    Forbidden,
    RateLimited,
    RetryableError,
)
from tasks.model.account import Account
from tasks.model.evaluation import Evaluation
from tasks.model.job import Job
from tasks.resilience.adaptive_rate import AdaptiveRate
from tasks.resilience.circuit_breaker import CircuitBreaker
from tasks.resilience.holds import KEY_BACKOFF, Holds, Reason
from tasks.resilience.permission import PermissionMonitor, Verdict
from tasks.resilience.rate_headers import RateLimitHeaders
from tasks.resilience.rate_limiter import RateLimiter
from tasks.resilience.retry import RetryPolicy, retry_quickly
from tasks.riskos.download import DownloadOptions, check_access, download
from tasks.riskos.response import FetchResult, NoBundle
from tasks.telemetry import log_events
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
    permissions: PermissionMonitor
    options: DownloadOptions
    retry_policy: RetryPolicy


async def fetch(client: RiskOSClient, evaluation: Evaluation, job: Job) -> FetchResult:
    """Return RiskOS's answer about an evaluation, after quick retries where they may help.

    Raises:
        RetryableError: it failed also when asked again.
        BlockedError: the account has to wait.
        Forbidden: RiskOS answered 403.
        BundleTooLarge: the bundle is larger than it may be.
    """
    async for attempt in retry_quickly(client.retry_policy):
        with attempt:
            return await _fetch_with_permit(client, evaluation, job)
    raise AssertionError("the loop ends by returning or raising")


async def _fetch_with_permit(client: RiskOSClient, evaluation: Evaluation, job: Job) -> FetchResult:
    wait = 0.0
    for _ in range(_MAX_RATE_LIMITED):
        probe = await _acquire_permit(client, job)
        words: list[RateLimitHeaders] = []
        sent_at = time.monotonic()
        try:
            answer = await _send(client, evaluation, words)
        except RateLimited:
            wait = await _slow_down(client, words[-1], sent_at, probe=probe)
        except AccountRefused as error:
            raise _same_request(error, await _hold_account(client, error, error.what, probe=probe)) from None
        except Forbidden as error:
            await _obey_headers(client, words[-1], sent_at)
            raise _same_request(error, await _judge_forbidden(client, evaluation, job, probe=probe)) from None
        except RetryableError as error:
            error.probe = probe
            raise
        except BundleTooLarge:
            await _record_answer(client, evaluation, probe=probe)
            raise
        else:
            await _record_answer(client, evaluation, probe=probe)
            await _obey_headers(client, words[-1], sent_at)
            return answer
    raise RateLimited(wait)


def _same_request(error: ArchiveError, judged: ArchiveError) -> ArchiveError:
    """Return the second error with the first one's request; another request may have been sent to judge it."""
    judged.request_id = error.request_id
    log_events.bind_request_id(error.request_id)
    return judged


async def _acquire_permit(client: RiskOSClient, job: Job) -> bool:
    """Wait for a permit; return whether its request is the probe of a hold."""
    started = time.monotonic()
    with span("rate_limit"):
        probe = await client.rate_limiter.acquire(client.account, job.queue, job.only_run)
    observe_step(Step.RATE_LIMIT, time.monotonic() - started)
    return probe


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
        case AccountRefused() | RetryableError() | Forbidden():
            return error.status
    return None


async def _slow_down(client: RiskOSClient, headers: RateLimitHeaders, sent_at: float, *, probe: bool) -> float:
    """Obey a 429; return the seconds until another request may be sent."""
    wait = await client.adaptive_rate.on_rate_limited(headers, sent_at, time.monotonic(), probe=probe)
    client.rate_limiter.set_hold(client.account.name, wait)
    return wait


async def _obey_headers(client: RiskOSClient, headers: RateLimitHeaders, sent_at: float) -> None:
    """Use what an answer says of the rate; it also ends a row of 429s."""
    client.adaptive_rate.on_success()
    held_for = await client.adaptive_rate.on_headers(headers, sent_at, time.monotonic())
    client.rate_limiter.set_hold(client.account.name, held_for)


async def _hold_account(client: RiskOSClient, error: AccountRefused, note: str, *, probe: bool) -> AccountRefused:
    """Put the account on hold; return the error with the seconds until the next probe."""
    name = client.account.name
    wait = await client.holds.place_until_probe(name, Reason(str(error.status)), note, KEY_BACKOFF, probe=probe)
    client.rate_limiter.set_hold(name, wait)
    return AccountRefused(error.status, wait)


async def _record_answer(client: RiskOSClient, evaluation: Evaluation, *, probe: bool) -> None:
    """RiskOS let the key read an evaluation; a hold whose probe that was ends."""
    client.permissions.record_answered(evaluation.eval_id)
    if probe:
        await _end_hold(client)


async def _end_hold(client: RiskOSClient) -> None:
    """The probe was answered: end the hold that it was for."""
    name = client.account.name
    hold = await client.holds.get(name)
    await client.holds.end_after_probe(name)
    await client.breaker.reset(name)
    if hold:
        await client.adaptive_rate.on_hold_ended(hold)


async def _judge_forbidden(client: RiskOSClient, evaluation: Evaluation, job: Job, *, probe: bool) -> ArchiveError:
    """Return the error for a 403: the account's, or the evaluation's with what it costs."""
    hold = await client.holds.get(client.account.name) if probe else None
    if hold and hold.reason is not Reason.FORBIDDEN:
        await _end_hold(client)  # RiskOS accepts the key, and answers
        hold = None
    found = await client.permissions.record_forbidden(evaluation.eval_id, job.forbidden_since)
    if hold or found.verdict is Verdict.ACCOUNT:
        return await _hold_account(client, AccountRefused(HTTPStatus.FORBIDDEN), found.note, probe=hold is not None)
    match found.verdict:
        case Verdict.EVALUATION:
            return Forbidden(Charge.ALL)
        case Verdict.UNKNOWN:
            return Forbidden(Charge.ATTEMPT)
        case Verdict.ASK_CONTROL:
            return await _ask_control(client, replace(evaluation, eval_id=found.control), job)
    return Forbidden(Charge.NOTHING)


async def _ask_control(client: RiskOSClient, control: Evaluation, job: Job) -> ArchiveError:
    """Ask for an evaluation that RiskOS answered before; return the error for the one that was answered 403."""
    probe = await _acquire_permit(client, job)
    words: list[RateLimitHeaders] = []
    sent_at = time.monotonic()
    try:
        await check_access(client.http, control, client.account, client.options, words.append)
    except RateLimited:
        return RateLimited(await _slow_down(client, words[-1], sent_at, probe=probe))
    except AccountRefused as error:
        return await _hold_account(client, error, error.what, probe=probe)
    except Forbidden:
        found = await client.permissions.record_forbidden(control.eval_id, None)
        if found.verdict is Verdict.ACCOUNT:
            return await _hold_account(client, AccountRefused(HTTPStatus.FORBIDDEN), found.note, probe=probe)
        return Forbidden(Charge.NOTHING)
    except RetryableError:
        return Forbidden(Charge.NOTHING)
    await _record_answer(client, control, probe=probe)
    await client.permissions.flush()
    return Forbidden(Charge.ALL)
