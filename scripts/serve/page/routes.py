"""Add the routes of the operations page."""

import functools
from collections.abc import Mapping

from aiohttp import web
from redis.asyncio import Redis

from scripts.overview.rate_status import read_rate
from scripts.serve.http.body import expect
from scripts.serve.http.limits import HttpLimits
from scripts.serve.page.actions import ActionViews
from scripts.serve.page.assets import Assets
from scripts.serve.page.document_views import DocumentViews
from scripts.serve.page.evaluation_view import EvaluationView
from scripts.serve.page.overview_cache import OverviewCache
from scripts.serve.page.quarantine_view import QuarantineView
from scripts.serve.page.rate_history import RateHistory
from scripts.serve.page.rejected_view import RejectedView
from scripts.serve.page.renderer import PageRenderer, View, templates
from scripts.serve.page.run_view import RunView
from scripts.serve.page.signer import PageSigner
from scripts.serve.page.views import Views
from tasks.ledger.ledger import Ledger
from tasks.ledger.rejected_messages import RejectedMessages
from tasks.storage.bucket import Bucket
from tasks.storage.encrypted_bucket import EncryptedBucket
from tasks.storage.encryption import Keyring
from worker.config.accounts import Accounts
from worker.config.settings import Settings


def add_page(
    made: web.Application,
    settings: Settings,
    accounts: Accounts,
    redis: "Redis",
    bucket: Bucket,
    limits: HttpLimits,
    *,
    read_only: bool,
) -> None:
    """Add the operations page to the application; the middleware has authenticated the callers."""
    charts = {each.name: RateHistory(functools.partial(read_rate, redis, each)) for each in accounts}
    assets = Assets()
    renderer = PageRenderer(accounts, assets, read_only, templates(settings.path_prefix or ""))
    cache = OverviewCache(redis, accounts)
    gets = _read_views(renderer, cache, settings, redis, bucket, charts=charts)
    for path, view in gets.items():
        made.router.add_get(path, renderer.as_page_handler(view), allow_head=False, expect_handler=expect)
    actions = ActionViews(renderer, redis, PageSigner(redis), cache, limits, bucket, settings.environment)
    for path, (confirm, act) in _action_views(actions).items():
        made.router.add_get(path, renderer.as_page_handler(confirm), allow_head=False, expect_handler=expect)
        made.router.add_post(path, renderer.as_page_handler(act), expect_handler=expect)
    made.router.add_get("/page/assets/{hash}/{name}", assets.show, allow_head=False, expect_handler=expect)
    made.cleanup_ctx.extend(history.run for history in charts.values())


def _read_views(
    renderer: PageRenderer,
    cache: OverviewCache,
    settings: Settings,
    redis: "Redis",
    bucket: Bucket,
    *,
    charts: Mapping[str, RateHistory],
) -> dict[str, View]:
    """Return the pages that only read, by path."""
    accounts, ledger = renderer.accounts, Ledger(redis)
    documents = EncryptedBucket(bucket, Keyring.of(settings.keyring_texts()))
    pictures = DocumentViews(bucket, documents, PageSigner(redis), accounts)
    views = Views(renderer, cache, ledger, charts)
    runs = RunView(renderer, cache, ledger, bucket, settings.environment)
    return {
        "/": views.overview,
        "/page/now": views.overview_body,
        "/page/rate": views.rate,
        "/page/runs": views.runs,
        "/page/run": runs.show,
        "/page/report": runs.report,
        "/page/dead-letters": views.dead_letters,
        "/page/rejected": RejectedView(renderer, RejectedMessages(redis)).show,
        "/page/quarantine": QuarantineView(renderer, bucket, accounts).show,
        "/page/evaluation": EvaluationView(renderer, bucket, ledger, pictures, accounts).show,
        "/page/pictures/{eval_id}/{kind}/{sha256}": pictures.show,
    }


def _action_views(actions: ActionViews) -> dict[str, tuple[View, View]]:
    """Return for each path of an action the page that asks for a confirmation, and the action."""
    confirm, act = actions.confirm_dead_letters, actions.act_on_dead_letters
    return {
        "/page/resume": (actions.confirm_resume, actions.resume),
        "/page/cancel": (actions.confirm_cancel, actions.cancel),
        "/page/redrive": (functools.partial(confirm, action="redrive"), functools.partial(act, action="redriven")),
        "/page/drop": (functools.partial(confirm, action="drop"), functools.partial(act, action="dropped")),
    }
