"""What a person can look at: what is under way, all runs, the dead letters of a cause."""

import hashlib
from dataclasses import dataclass

from aiohttp import web

from scripts.serve.auth.roles import Caller
from scripts.serve.page.flash import read_flash
from scripts.serve.page.overview_cache import OverviewCache
from scripts.serve.page.paging import AT_ONCE, Pages, number_of
from scripts.serve.page.renderer import HEADERS, PageRenderer
from tasks.ledger.ledger import Ledger


@dataclass(frozen=True, slots=True)
class Views:
    """The sheets that show what is in Redis."""

    renderer: PageRenderer
    cache: OverviewCache
    ledger: Ledger

    async def overview(self, request: web.Request, caller: Caller) -> web.Response:
        """Answer ``GET /``."""
        text, digest = await self._render_overview(caller)
        still = "still" in request.query
        return self.renderer.respond(
            "overview.html.j2", caller, text=text, digest=digest, still=still, flash=read_flash(request), at="/"
        )

    async def overview_body(self, request: web.Request, caller: Caller) -> web.Response:
        """Answer ``GET /page/now``: what changes on the first sheet, or 204 where nothing has since it was seen."""
        text, digest = await self._render_overview(caller)
        if request.query.get("seen") == digest:
            return web.Response(status=204, headers=HEADERS)
        return self.renderer.respond("overview_update.html.j2", caller, text=text, digest=digest, still=False)

    async def runs(self, request: web.Request, caller: Caller) -> web.Response:
        """Answer ``GET /page/runs``."""
        pages = Pages(number_of(request, "skip"), await self.ledger.count_runs())
        runs = await self.ledger.get_counters(await self.ledger.list_runs(AT_ONCE, skip=pages.skip))
        snapshot = await self.cache.get()
        return self.renderer.respond(
            "runs.html.j2", caller, runs=runs, pages=pages, overview=snapshot.overview, at="/page/runs"
        )

    async def dead_letters(self, request: web.Request, caller: Caller) -> web.Response:
        """Answer ``GET /page/dead-letters``: by cause, or those of one."""
        cause = request.query.get("cause", "")
        pages = Pages(number_of(request, "skip"), await self.ledger.count_dead_letters(cause))
        dead = await self.ledger.list_dead_letters(cause, AT_ONCE, skip=pages.skip)
        return self.renderer.respond(
            "dead_letters.html.j2",
            caller,
            causes=await self.ledger.count_causes(),
            cause=cause,
            pages=pages,
            letters=await self.ledger.get_dead_letters(dead),
            flash=read_flash(request),
            at="/page/dead-letters",
        )

    async def _render_overview(self, caller: Caller) -> tuple[str, str]:
        """Return what changes on the first sheet, and what it is known by."""
        snapshot = await self.cache.get()
        text = self.renderer.render("overview_body.html.j2", caller, snapshot=snapshot, overview=snapshot.overview)
        return text, hashlib.sha256(text.encode()).hexdigest()[:16]
