"""Receive webhook events: write each to the ledger before it is answered, and store unusable ones for an operator."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import assert_never

import structlog
from aiohttp import web

from scripts.serve.api.background_publisher import BackgroundPublisher
from scripts.serve.api.event import IgnoredEvent, RequestedEvaluation, UnusableEvent, read_event
from scripts.serve.auth.accounts import WebhookAuth
from scripts.serve.http.body import parse_object, read_body
from scripts.serve.http.limits import HttpLimits
from scripts.serve.http.responses import HTTPError, json_response
from scripts.serve.metrics import EventResult, HttpMetrics
from tasks.ledger.ledger import Ledger
from tasks.ledger.rejected_messages import RejectedMessages
from tasks.model.job import EnqueueOptions, Queue, Trigger

_log = structlog.get_logger("docv.serve")
_SOURCE = "webhook"
_REFUSED = {401: EventResult.REFUSED_LOGIN, 404: EventResult.UNKNOWN_ACCOUNT}


@dataclass(frozen=True, slots=True)
class WebhookApi:
    """Receives the events of RiskOS.

    Attributes:
        webhooks: authenticates a request, and returns its account.
        rejected: stores unusable events.
        settle_seconds: seconds between an event and its first request.
        ask_without_docv: whether to ask RiskOS even if an event shows that there was no DocV step.
        now: returns the seconds since the epoch.
    """

    webhooks: WebhookAuth
    ledger: Ledger
    publisher: BackgroundPublisher
    rejected: RejectedMessages
    metrics: HttpMetrics
    settle_seconds: float
    limits: HttpLimits
    ask_without_docv: bool = False
    now: Callable[[], float] = time.time

    async def receive(self, request: web.Request) -> web.Response:
        """Answer ``POST /webhooks/riskos`` and ``POST /webhooks/riskos/{account}``."""
        try:
            result = await self._process(request)
        except HTTPError as error:
            self.metrics.count_event(_REFUSED.get(error.status, EventResult.BAD_BODY))
            raise
        except Exception:
            self.metrics.count_event(EventResult.NOT_KEPT)
            raise
        self.metrics.count_event(result)
        return json_response(200, {"result": result})

    async def _process(self, request: web.Request) -> EventResult:
        account = self.webhooks.authenticate(request)
        body = parse_object(await read_body(request, self.limits), self.limits)
        event = read_event(body, account.settings.environment)
        async with asyncio.timeout(self.limits.redis_seconds):
            match event:
                case IgnoredEvent():
                    return event.because
                case UnusableEvent():
                    # If it were refused, RiskOS would deliver it again, and finally disable the webhook.
                    return await self._store_rejected(event)
                case RequestedEvaluation():
                    published = await self._accept(event, account.name)
                case _:
                    assert_never(event)
        if published is None:
            return EventResult.REPEATED
        await self.publisher.publish(Queue.LIVE, published)
        return EventResult.ACCEPTED

    async def _store_rejected(self, event: UnusableEvent) -> EventResult:
        facts = {"event_id": event.event_id, "event_type": event.event_type}
        await self.rejected.add(
            cause="bad_event", why=event.why, source=_SOURCE, message=event.event_id, event_type=event.event_type
        )
        _log.error("webhook.unusable", **facts, cause=event.cause)
        return EventResult.UNUSABLE

    async def _accept(self, wanted: RequestedEvaluation, account: str) -> list[str] | None:
        """Accept the evaluation; return the IDs to publish, or None for a repeated event."""
        order = EnqueueOptions(
            Queue.LIVE,
            account,
            Trigger(_SOURCE, event_type=wanted.event_type, event_id=wanted.event_id),
            refresh=wanted.refresh,
            delay=wanted.settle_delay(self.settle_seconds, self.now()),
            facts={wanted.eval_id: wanted.facts},
            without_request=wanted.is_without_docv and not self.ask_without_docv,
        )
        if wanted.key is None:
            return await self.ledger.accept([wanted.eval_id], order)
        return await self.ledger.accept_event(wanted.key, wanted.eval_id, order)
