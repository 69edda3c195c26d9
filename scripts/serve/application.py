"""Build the web application: its handlers, middlewares and routes."""

import asyncio
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web
from aiohttp.typedefs import Handler
from obstore.store import S3Store
from redis.asyncio import Redis

from scripts.serve.api.background_publisher import BackgroundPublisher
from scripts.serve.api.evaluations import EvaluationsApi
from scripts.serve.api.health import HealthApi
from scripts.serve.api.idempotency import IdempotencyStore
from scripts.serve.api.openapi import PATHS, show_document
from scripts.serve.api.retention_events import RetentionEventsApi
from scripts.serve.api.submit import SubmitApi
from scripts.serve.api.webhook import WebhookApi
from scripts.serve.auth.accounts import WebhookAuth
from scripts.serve.auth.credentials import CredentialCheck
from scripts.serve.auth.roles import Authenticator, Role, require_auth
from scripts.serve.auth.wrong_secrets import WrongSecretLimiter, limit_wrong_secrets
from scripts.serve.http.body import expect
from scripts.serve.http.limits import HttpLimits
from scripts.serve.metrics import HttpMetrics
from scripts.serve.page.routes import add_page
from scripts.serve.request_log import log_requests
from scripts.serve.request_tracing import trace_request
from tasks.consumer.system_metrics import SystemMetrics
from tasks.ledger.ledger import Ledger
from tasks.ledger.rejected_messages import RejectedMessages
from tasks.model.account import Allowance
from tasks.retention.schedule import load_schedule
from tasks.storage.bucket import Bucket
from tasks.storage.open_bucket import open_bucket
from tasks.telemetry import tracing
from worker.clients.primary import check_writable
from worker.config.accounts import Accounts
from worker.config.settings import Settings
from worker.metrics.shared_metrics import SharedMetrics

_TOKENS = 'Bearer realm="docv-archive"'
# Routes that authenticate their requests themselves, and the public one.
_PUBLIC_ROUTES = ("/webhooks/riskos", "/webhooks/riskos/{account}", "/evaluations", "/evaluations/{eval_id}", "/livez")
_ROLES = {"/evaluations/{eval_id}/events": (Role.OPERATOR, Role.RECORDS)}


@dataclass(frozen=True, slots=True)
class ServeClients:
    """The open clients of the application.

    Attributes:
        events: publishes evaluations that events request.
        ids: publishes submitted IDs, on its own connection, since there may be thousands at once.
    """

    redis: "Redis"
    archive: S3Store | Path
    events: BackgroundPublisher
    ids: BackgroundPublisher


def make_application(
    settings: Settings,
    accounts: Accounts,
    opened: ServeClients,
    metrics: HttpMetrics,
    limits: HttpLimits,
    *,
    read_only: bool = False,
) -> web.Application:
    """Return the application with all its routes; ``read_only`` disables all actions on the page."""
    bucket = open_bucket(opened.archive, settings.storage_class)
    allowances = {each.name: Allowance.from_settings(each) for each in accounts}
    metrics.register_shared(SharedMetrics(SystemMetrics(opened.redis, allowances).collect, asyncio.get_running_loop()))
    absent_key = f"{settings.environment}/is-the-archive-there"
    health = HealthApi({"redis": lambda: check_writable(opened.redis), "archive": lambda: bucket.read(absent_key)})
    handlers = _make_handlers(settings, accounts, opened, bucket, metrics, limits) | {
        "show_document": show_document,
        "live": health.live,
        "ready": health.ready,
        "metrics": metrics.show,
    }
    authenticator = Authenticator(
        {
            Role.OPERATOR: settings.operators,
            Role.VIEWER: settings.viewers,
            Role.PRODUCER: settings.intake_tokens,
            Role.RECORDS: settings.records_tokens,
        }
    )
    limiter = WrongSecretLimiter(limits.wrong_secrets_per_second)
    made = web.Application(
        middlewares=[
            *((trace_request,) if tracing.is_on() else ()),
            log_requests(metrics),
            limit_wrong_secrets(limiter, metrics),
            require_auth(authenticator, _PUBLIC_ROUTES, _ROLES),
        ]
    )
    for path, operations in PATHS.items():
        for method, operation in operations.items():
            made.router.add_route(method, path, handlers[operation["operationId"]], expect_handler=expect)
    add_page(made, settings, accounts, opened.redis, bucket, limits, read_only=read_only)
    metrics.preset_routes({each.canonical for each in made.router.resources()})
    made.on_cleanup.append(health.close)
    return made


def _make_handlers(
    settings: Settings,
    accounts: Accounts,
    opened: ServeClients,
    bucket: Bucket,
    metrics: HttpMetrics,
    limits: HttpLimits,
) -> dict[str, Handler]:
    ledger = Ledger(opened.redis, settings.lease_seconds, replicas=settings.redis_replicas)
    producers = CredentialCheck(settings.intake_tokens, _TOKENS)
    rejected = RejectedMessages(opened.redis)
    webhook = WebhookApi(
        WebhookAuth(accounts),
        ledger,
        opened.events,
        rejected,
        metrics,
        settings.settle_seconds,
        limits,
        ask_without_docv=settings.ask_without_docv,
    )
    intake = SubmitApi(producers, accounts, ledger, opened.ids, IdempotencyStore(opened.redis), metrics, limits)
    look_up = EvaluationsApi(producers, opened.redis, bucket, accounts)
    return {
        "receive_event": webhook.receive,
        "receive_event_of_account": webhook.receive,
        "hand_in": intake.submit,
        "show_evaluation": look_up.show,
        "report_event": RetentionEventsApi(bucket, accounts, load_schedule(settings), limits).record,
    }
