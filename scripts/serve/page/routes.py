"""Every address of the operations page."""

import functools

from aiohttp import web
from redis.asyncio import Redis

from scripts.overview.rate_status import see_rate
from scripts.serve.auth.accounts import whose
from scripts.serve.auth.roles import Caller
from scripts.serve.http.limits import Bounds
from scripts.serve.page.actions import Actions
from scripts.serve.page.assets import Assets
from scripts.serve.page.document_views import Pictures
from scripts.serve.page.evaluation_view import LookUp
from scripts.serve.page.overview_cache import Eye
from scripts.serve.page.rate_history import RateHistory
from scripts.serve.page.renderer import Desk, View, templates
from scripts.serve.page.signer import Signer
from scripts.serve.page.views import Sheets
from tasks.ledger.ledger import Ledger
from tasks.storage.bucket import Bucket
from tasks.storage.encrypted_bucket import SealedBucket
from tasks.storage.encryption import Keyring
from worker.config.accounts import Accounts
from worker.config.settings import Settings


def add_page(
    made: web.Application,
    settings: Settings,
    accounts: Accounts,
    redis: "Redis",
    bucket: Bucket,
    bounds: Bounds,
    *,
    read_only: bool,
) -> None:
    """Add the operations page to the doors; who comes here has come past the guard."""
    histories = {each.name: RateHistory(functools.partial(see_rate, redis, each)) for each in accounts}

    async def show_rate(request: web.Request, caller: Caller) -> web.Response:
        """Answer ``GET /page/rate``."""
        return await histories[whose(accounts, request.query.get("account"), 400).name].show(request, caller)

    assets = Assets()
    desk = Desk(accounts, assets, read_only, templates())
    looks, acts = _views(desk, settings, accounts, redis, bucket, bounds)
    looks["/page/rate"] = show_rate
    for path, view in looks.items():
        made.router.add_get(path, desk.for_persons(view), allow_head=False)
    for path, view in acts.items():
        made.router.add_post(path, desk.for_persons(view))
    made.router.add_get("/page/assets/{hash}/{name}", assets.show, allow_head=False)
    made.cleanup_ctx.extend(history.looking for history in histories.values())


def _views(
    desk: Desk, settings: Settings, accounts: Accounts, redis: "Redis", bucket: Bucket, bounds: Bounds
) -> tuple[dict[str, View], dict[str, View]]:
    ledger, signer, eye = Ledger(redis), Signer(redis), Eye(redis, accounts)
    opening = SealedBucket(bucket, Keyring.of(settings.keyring_texts()))
    pictures = Pictures(bucket, opening, signer, accounts)
    sheets = Sheets(desk, eye, ledger)
    actions = Actions(desk, redis, signer, eye, bounds)
    looks: dict[str, View] = {
        "/": sheets.first,
        "/page/now": sheets.now,
        "/page/runs": sheets.runs,
        "/page/dead-letters": sheets.dead_letters,
        "/page/evaluation": LookUp(desk, bucket, ledger, pictures, accounts).show,
        "/page/pictures/{eval_id}/{kind}/{sha256}": pictures.show,
        "/page/resume": actions.ask_resume,
        "/page/redrive": actions.ask_redrive,
        "/page/drop": actions.ask_drop,
    }
    return looks, {"/page/resume": actions.resume, "/page/redrive": actions.redrive, "/page/drop": actions.drop}
