"""Request documents of one account with permits, and place the holds that follow from RiskOS's answers.

Quick retries are made here, so each of them needs a permit like any other request.
"""

import time
from collections.abc import Awaitable
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import TypeVar

import aiohttp

from tasks.errors import (
    AccountRefused,
    ArchiveError,
    BundleTooLarge,
    Charge,
    Fault,
    Forbidden,
    RateLimited,
    RetryableError,
)
from tasks.model.account import Account
from tasks.model.evaluation import Evaluation
from tasks.model.job import Job
from tasks.model.outcome import Evidence
from tasks.resilience.adaptive_rate import AdaptiveRate
from tasks.resilience.circuit_breaker import CircuitBreaker
from tasks.resilience.holds import KEY_BACKOFF, Holds, Reason
from tasks.resilience.permission import PermissionMonitor, Verdict
from tasks.resilience.rate_limiter import RateLimiter
from tasks.resilience.retry import RetryPolicy, retry_quickly
from tasks.riskos.docv_evidence import find_record_evidence
from tasks.riskos.download import KEEP, BundleHandling, DownloadOptions, check_access, download, read_evaluation
from tasks.riskos.response import Bundle, Denial, FetchResult, NoBundle, Response, WithheldBundle
from tasks.telemetry import log_events, tracing
from tasks.telemetry.tracing import SpanKind, span
from worker.metrics.worker_metrics import Step, count_request, observe_step, timed

_MAX_RATE_LIMITED = 5
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class RiskOSClient:
    """The client of one account: it sends requests within the account's rate, and places and ends its holds."""

    http: aiohttp.ClientSession
    account: Account
    rate_limiter: RateLimiter
    holds: Holds
    adaptive_rate: AdaptiveRate
    breaker: CircuitBreaker
    permissions: PermissionMonitor
    options: DownloadOptions
    retry_policy: RetryPolicy

    async def fetch(self, evaluation: Evaluation, job: Job, handling: BundleHandling = KEEP) -> FetchResult:
        """Return RiskOS's answer about an evaluation, after quick retries if they may help.

        Raises:
            RetryableError: the quick retries failed, too.
            BlockedError: the account has to wait.
            Forbidden: RiskOS answered 403.
            BundleTooLarge: the bundle is larger than the settings allow.
        """
        async for attempt in retry_quickly(self.retry_policy):
            with attempt:
                return await self._fetch_with_permit(evaluation, job, handling)
        raise AssertionError("the loop ends by returning or raising")

    async def explain(self, evaluation: Evaluation, job: Job) -> tuple[Evidence, ...]:
        """Return the evidence about missing documents in RiskOS's record of an evaluation.

        The request takes a permit and counts towards the quota like any other. A 401 or 403 does not hold the account,
        because RiskOS has just answered for the documents with the same key, and the record only explains that answer.

        Raises:
            ArchiveError: RiskOS does not give the record, or the account has to wait.
        """
        for _ in range(_MAX_RATE_LIMITED):
            is_probe = await self._acquire_permit(job)
            with span("explain", SpanKind.CLIENT):
                response = await _count(read_evaluation(self.http, evaluation, self.account, self.options))
            match response.result:
                case RateLimited():
                    await self._slow_down(response, is_probe=is_probe)
                case ArchiveError() as denial:
                    raise denial
                case record:
                    if is_probe:
                        await self._end_hold()
                    await self._apply_headers(response)
                    return find_record_evidence(record or b"")
        return ()

    async def _fetch_with_permit(self, evaluation: Evaluation, job: Job, handling: BundleHandling) -> FetchResult:
        wait = 0.0
        for _ in range(_MAX_RATE_LIMITED):
            is_probe = await self._acquire_permit(job)
            response = await self._download(evaluation, job, handling, is_probe=is_probe)
            match response.result:
                case RateLimited():
                    wait = await self._slow_down(response, is_probe=is_probe)
                case AccountRefused() as refused:
                    raise await self._hold_account(refused, refused.what, is_probe=is_probe)
                case Forbidden(request_id=request_id):
                    await self._apply_headers(response)
                    judged = await self._classify_forbidden(evaluation, job, is_probe=is_probe)
                    # Another request may have been sent to judge this one; log and error name this one.
                    log_events.bind_request_id(request_id)
                    raise judged.with_request_id(request_id)
                case result:
                    await self._record_answer(evaluation, is_probe=is_probe)
                    await self._apply_headers(response)
                    return result
        raise RateLimited(wait)

    async def _acquire_permit(self, job: Job) -> bool:
        """Wait for a permit; return whether its request is the probe of a hold."""
        started = time.monotonic()
        with span("rate_limit"):
            is_probe = await self.rate_limiter.acquire(self.account, job.queue, job.only_run)
        observe_step(Step.RATE_LIMIT, time.monotonic() - started)
        return is_probe

    async def _download(
        self, evaluation: Evaluation, job: Job, handling: BundleHandling, *, is_probe: bool
    ) -> Response[FetchResult | Denial]:
        """Send the request for the documents; if it fails, the error says whether it was the probe of a hold."""
        try:
            with timed(Step.DOWNLOAD), span("download", SpanKind.CLIENT):
                request = download(self.http, evaluation, self.account, self.options, handling)
                return await _count(request)
        except RetryableError as error:
            if is_probe and not await self._is_control_answered(evaluation, job, error):
                raise error.as_probe() from None
            raise
        except BundleTooLarge:
            await self._record_answer(evaluation, is_probe=is_probe)
            raise

    async def _slow_down(self, response: Response[object], *, is_probe: bool) -> float:
        """Obey a 429; return the seconds until another request may be sent."""
        headers, sent_at = response.headers, response.sent_at
        wait = await self.adaptive_rate.on_rate_limited(headers, sent_at, time.monotonic(), probe=is_probe)
        self.rate_limiter.set_hold(self.account.name, wait)
        return wait

    async def _apply_headers(self, response: Response[object]) -> None:
        """Adapt the rate to the headers of a response; the response also ends a series of 429s."""
        self.adaptive_rate.on_success()
        held_for = await self.adaptive_rate.on_headers(response.headers, response.sent_at, time.monotonic())
        self.rate_limiter.set_hold(self.account.name, held_for)

    async def _hold_account(self, refused: AccountRefused, note: str, *, is_probe: bool) -> AccountRefused:
        """Put the account on hold; return the error with the seconds until the next probe."""
        name, reason = self.account.name, Reason(str(refused.status))
        wait = await self.holds.place_until_probe(name, reason, note, KEY_BACKOFF, probe=is_probe)
        self.rate_limiter.set_hold(name, wait)
        return AccountRefused(refused.status, wait).with_request_id(refused.request_id)

    async def _record_answer(self, evaluation: Evaluation, *, is_probe: bool) -> None:
        """Record that the key may read an evaluation; end the hold if this was its probe."""
        self.permissions.record_answered(evaluation.eval_id)
        if is_probe:
            await self._end_hold()

    async def _end_hold(self) -> None:
        """End the hold whose probe was answered."""
        name = self.account.name
        hold = await self.holds.get(name)
        await self.holds.end_after_probe(name)
        await self.breaker.reset(name)
        if hold:
            await self.adaptive_rate.on_hold_ended(hold)

    async def _classify_forbidden(self, evaluation: Evaluation, job: Job, *, is_probe: bool) -> ArchiveError:
        """Return the error for a 403: one of the account, or one of the evaluation with its charge."""
        hold = await self.holds.get(self.account.name) if is_probe else None
        if hold and hold.reason is not Reason.FORBIDDEN:
            await self._end_hold()  # RiskOS accepts the key, and answers
            hold = None
        found = await self.permissions.record_forbidden(evaluation.eval_id, job.forbidden_since)
        if hold or found.verdict is Verdict.ACCOUNT:
            return await self._hold_account(AccountRefused(HTTPStatus.FORBIDDEN), found.note, is_probe=hold is not None)
        match found.verdict:
            case Verdict.EVALUATION:
                return Forbidden(Charge.ALL)
            case Verdict.UNKNOWN:
                return Forbidden(Charge.ATTEMPT)
            case Verdict.NEEDS_CONTROL:
                return await self._request_control(replace(evaluation, eval_id=found.control), job)
        return Forbidden(Charge.NOTHING)

    async def _request_control(self, control: Evaluation, job: Job) -> ArchiveError:
        """Request an evaluation that RiskOS answered before; return the error for the one that was answered 403."""
        is_probe = await self._acquire_permit(job)
        try:
            response = await check_access(self.http, control, self.account, self.options)
        except RetryableError:
            return Forbidden(Charge.NOTHING)
        match response.result:
            case RateLimited():
                return RateLimited(await self._slow_down(response, is_probe=is_probe))
            case AccountRefused() as refused:
                return await self._hold_account(refused, refused.what, is_probe=is_probe)
            case Forbidden():
                found = await self.permissions.record_forbidden(control.eval_id, None)
                if found.verdict is Verdict.ACCOUNT:
                    refused = AccountRefused(HTTPStatus.FORBIDDEN)
                    return await self._hold_account(refused, found.note, is_probe=is_probe)
                return Forbidden(Charge.NOTHING)
        await self._record_answer(control, is_probe=is_probe)
        await self.permissions.flush()
        return Forbidden(Charge.ALL)

    async def _is_control_answered(self, evaluation: Evaluation, job: Job, error: RetryableError) -> bool:
        """Return whether RiskOS answers for another evaluation, and end the hold if it does.

        The request is sent only if a probe failed whose evaluation had failed before: if only such evaluations are
        left, the hold would never end.
        """
        control = await self.permissions.find_control(evaluation.eval_id)
        if not job.suspect or error.fault is Fault.MACHINE or not control:
            return False
        other = replace(evaluation, eval_id=control)
        try:
            response = await check_access(self.http, other, self.account, self.options)
        except ArchiveError:
            return False
        if response.result is not None:
            return False
        await self._record_answer(other, is_probe=True)
        return True


async def _count(request: Awaitable[Response[_Result]]) -> Response[_Result]:
    """Await the response to a request, and count it by status and size; a denial also ends the span as an error."""
    try:
        response = await request
    except ArchiveError as error:
        count_request(_status_of(error), 0)
        raise
    match response.result:
        case ArchiveError() as denial:
            tracing.record_failure(type(denial).__name__)
            count_request(_status_of(denial), 0)
        case NoBundle(status=status):
            count_request(status, 0)
        case Bundle(size=size) | WithheldBundle(size=size):
            count_request(HTTPStatus.OK, size)
        case record:
            count_request(HTTPStatus.OK if record else HTTPStatus.NOT_FOUND, 0)
    return response


def _status_of(error: ArchiveError) -> int | None:
    match error:
        case RateLimited():
            return HTTPStatus.TOO_MANY_REQUESTS
        case BundleTooLarge():
            return HTTPStatus.OK
        case AccountRefused() | RetryableError() | Forbidden():
            return error.status
    return None
