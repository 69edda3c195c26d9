"""The webhook: an event is in the ledger before it is answered, and what cannot be used is kept for a person."""

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
    """Where RiskOS delivers its events.

    Attributes:
        webhooks: who may deliver, and whose events.
        rejected: where unusable events are kept.
        settle_seconds: pause between an event and its first request.
        ask_without_docv: ask RiskOS even if an event shows that there was no DocV step.
        now: seconds since the epoch.
    """

    webhooks: WebhookAuth
    ledger: Ledger
    publisher: BackgroundPublisher
    rejected: RejectedMessages
    figures: HttpMetrics
    settle_seconds: float
    limits: HttpLimits
    ask_without_docv: bool = False
    now: Callable[[], float] = time.time

    async def receive(self, request: web.Request) -> web.Response:
        """Answer ``POST /webhooks/riskos`` and ``POST /webhooks/riskos/{account}``."""
        try:
            result = await self._received(request)
        except HTTPError as error:
            self.figures.count_event(_REFUSED.get(error.status, EventResult.BAD_BODY))
            raise
        except Exception:
            self.figures.count_event(EventResult.NOT_KEPT)
            raise
        self.figures.count_event(result)
        return json_response(200, {"result": result})

    async def _received(self, request: web.Request) -> EventResult:
        account = self.webhooks.authenticate(request)
        body = parse_object(await read_body(request, self.limits), self.limits)
        asked = read_event(body, account.settings.environment)
        async with asyncio.timeout(self.limits.redis_seconds):
            match asked:
                case IgnoredEvent():
                    return asked.because
                case UnusableEvent():
                    # Refusing it would only have it delivered again, and the webhook switched off.
                    await self.rejected.add(cause="bad_event", why=asked.why, source=_SOURCE)
                    _log.error("webhook.unusable", event_type=asked.event_type, cause=asked.cause)
                    return EventResult.UNUSABLE
                case RequestedEvaluation():
                    new = await self._accept(asked, account.name)
                case _:
                    assert_never(asked)
        if new is None:
            return EventResult.REPEATED
        await self.publisher.publish(Queue.LIVE, new)
        return EventResult.ACCEPTED

    async def _accept(self, wanted: RequestedEvaluation, account: str) -> list[str] | None:
        """Write the evaluation down; return what is to be published, or None for a repeated event."""
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
