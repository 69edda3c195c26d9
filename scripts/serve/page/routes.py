"""Every address of the operations page."""

import functools

from aiohttp import web
from redis.asyncio import Redis

from scripts.overview.rate_status import read_rate
from scripts.serve.auth.accounts import resolve_account
from scripts.serve.auth.roles import Caller
from scripts.serve.http.limits import HttpLimits
from scripts.serve.page.actions import ActionViews
from scripts.serve.page.assets import Assets
from scripts.serve.page.document_views import DocumentViews
from scripts.serve.page.evaluation_view import EvaluationView
from scripts.serve.page.overview_cache import OverviewCache
from scripts.serve.page.rate_history import RateHistory
from scripts.serve.page.renderer import PageRenderer, View, templates
from scripts.serve.page.signer import PageSigner
from scripts.serve.page.views import Views
from tasks.ledger.ledger import Ledger
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
    """Add the operations page to the doors; who comes here has come past the guard."""
    histories = {each.name: RateHistory(functools.partial(read_rate, redis, each)) for each in accounts}

    async def show_rate(request: web.Request, caller: Caller) -> web.Response:
        """Answer ``GET /page/rate``."""
        return await histories[resolve_account(accounts, request.query.get("account"), 400).name].show(request, caller)

    assets = Assets()
    desk = PageRenderer(accounts, assets, read_only, templates())
    looks, acts = _views(desk, settings, accounts, redis, bucket, limits)
    looks["/page/rate"] = show_rate
    for path, view in looks.items():
        made.router.add_get(path, desk.for_persons(view), allow_head=False)
    for path, view in acts.items():
        made.router.add_post(path, desk.for_persons(view))
    made.router.add_get("/page/assets/{hash}/{name}", assets.show, allow_head=False)
    made.cleanup_ctx.extend(history.run for history in histories.values())


def _views(
    renderer: PageRenderer, settings: Settings, accounts: Accounts, redis: "Redis", bucket: Bucket, limits: HttpLimits
) -> tuple[dict[str, View], dict[str, View]]:
    ledger, signer, eye = Ledger(redis), PageSigner(redis), OverviewCache(redis, accounts)
    opening = EncryptedBucket(bucket, Keyring.of(settings.keyring_texts()))
    pictures = DocumentViews(bucket, opening, signer, accounts)
    sheets = Views(renderer, eye, ledger)
    actions = ActionViews(renderer, redis, signer, eye, limits, bucket, settings.environment)
    looks: dict[str, View] = {
        "/": sheets.overview,
        "/page/now": sheets.overview_body,
        "/page/runs": sheets.runs,
        "/page/dead-letters": sheets.dead_letters,
        "/page/evaluation": EvaluationView(renderer, bucket, ledger, pictures, accounts).show,
        "/page/pictures/{eval_id}/{kind}/{sha256}": pictures.show,
        "/page/resume": actions.confirm_resume,
        "/page/cancel": actions.confirm_cancel,
        "/page/redrive": functools.partial(actions.confirm_dead_letters, action="redrive"),
        "/page/drop": functools.partial(actions.confirm_dead_letters, action="drop"),
    }
    acts: dict[str, View] = {
        "/page/resume": actions.resume,
        "/page/cancel": actions.cancel,
        "/page/redrive": functools.partial(actions.act_on_dead_letters, action="redriven"),
        "/page/drop": functools.partial(actions.act_on_dead_letters, action="dropped"),
    }
    return looks, acts
