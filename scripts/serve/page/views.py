"""The pages that show data of Redis: the overview, all runs, the dead letters."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from aiohttp import web

from scripts.serve.auth.access_log import logged_access
from scripts.serve.auth.accounts import resolve_account
from scripts.serve.auth.roles import Caller
from scripts.serve.page.flash import read_flash
from scripts.serve.page.overview_cache import OverviewCache
from scripts.serve.page.paging import AT_ONCE, Pages, number_of
from scripts.serve.page.rate_history import RateHistory
from scripts.serve.page.renderer import HEADERS, PageRenderer
from tasks.ledger.ledger import Ledger


@dataclass(frozen=True, slots=True)
class Views:
    """The pages that show data of Redis.

    Attributes:
        charts: the rate history of each account, by its name.
    """

    renderer: PageRenderer
    cache: OverviewCache
    ledger: Ledger
    charts: Mapping[str, RateHistory]

    async def overview(self, request: web.Request, caller: Caller) -> web.Response:
        """Answer ``GET /``."""
        text, digest = await self._render_overview(caller)
        return self.renderer.respond(
            "overview.html.j2",
            caller,
            text=text,
            digest=digest,
            still="still" in request.query,
            charts={name: history.chart() for name, history in self.charts.items()},
            flash=read_flash(request),
            at="/",
        )

    async def overview_body(self, request: web.Request, caller: Caller) -> web.Response:
        """Answer ``GET /page/now``: the part of the overview that changes, or 204 if it has not changed."""
        text, digest = await self._render_overview(caller)
        if request.query.get("seen") == digest:
            return web.Response(status=204, headers=HEADERS)
        return self.renderer.respond("overview_update.html.j2", caller, text=text, digest=digest, still=False)

    async def rate(self, request: web.Request, caller: Caller) -> web.Response:
        """Answer ``GET /page/rate``: the chart of an account."""
        account = resolve_account(self.renderer.accounts, request.query.get("account"), 400).name
        return self.renderer.respond(
            "rate.html.j2", caller, account=account, chart=self.charts[account].chart(), still=False
        )

    async def runs(self, request: web.Request, caller: Caller) -> web.Response:
        """Answer ``GET /page/runs``."""
        pages = Pages(number_of(request, "skip"), await self.ledger.runs.count())
        runs = await self.ledger.runs.get_many_counters(await self.ledger.runs.list_newest(AT_ONCE, skip=pages.skip))
        snapshot = await self.cache.get()
        return self.renderer.respond(
            "runs.html.j2", caller, runs=runs, pages=pages, overview=snapshot.overview, at="/page/runs"
        )

    async def dead_letters(self, request: web.Request, caller: Caller) -> web.Response:
        """Answer ``GET /page/dead-letters``: their number by cause, or the dead letters of a cause."""
        cause = request.query.get("cause", "")
        pages = Pages(number_of(request, "skip"), await self.ledger.dead_letters.count(cause))
        with logged_access(request, caller, "dead_letters.viewed", cause=cause, skip=pages.skip):
            dead = await self.ledger.dead_letters.list_by_cause(cause, AT_ONCE, skip=pages.skip)
        return self.renderer.respond(
            "dead_letters.html.j2",
            caller,
            causes=await self.ledger.dead_letters.count_causes(),
            cause=cause,
            pages=pages,
            letters=await self.ledger.dead_letters.get_many(dead),
            flash=read_flash(request),
            at="/page/dead-letters",
        )

    async def _render_overview(self, caller: Caller) -> tuple[str, str]:
        """Return the part of the overview that changes, and its digest."""
        snapshot = await self.cache.get()
        text = self.renderer.render("overview_body.html.j2", caller, snapshot=snapshot, overview=snapshot.overview)
        return text, hashlib.sha256(text.encode()).hexdigest()[:16]
