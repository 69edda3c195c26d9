"""What a person can look at: what is under way, all runs, the dead letters of a cause."""

import hashlib
from dataclasses import dataclass

from aiohttp import web

from scripts.serve.auth.roles import Caller
from scripts.serve.page.flash import notice_of
from scripts.serve.page.overview_cache import OverviewCache
from scripts.serve.page.paging import AT_ONCE, Pages, number_of
from scripts.serve.page.renderer import HEADERS, PageRenderer
from tasks.ledger.ledger import Ledger

_DIGEST = 16


@dataclass(frozen=True, slots=True)
class Views:
    """The sheets that show what is in Redis.

    Attributes:
        desk: what they are made on.
        eye: looks for everybody.
        ledger: what is under way.
    """

    desk: PageRenderer
    eye: OverviewCache
    ledger: Ledger

    async def first(self, request: web.Request, caller: Caller) -> web.Response:
        """Answer ``GET /``."""
        text, digest = await self._now(caller)
        still = "still" in request.query
        return self.desk.show(
            "first.html.j2", caller, text=text, digest=digest, still=still, notice=notice_of(request), at="/"
        )

    async def now(self, request: web.Request, caller: Caller) -> web.Response:
        """Answer ``GET /page/now``: what changes on the first sheet, or 204 where nothing has since it was seen."""
        text, digest = await self._now(caller)
        if request.query.get("seen") == digest:
            return web.Response(status=204, headers=HEADERS)
        return self.desk.show("now.html.j2", caller, text=text, digest=digest, still=False)

    async def runs(self, request: web.Request, caller: Caller) -> web.Response:
        """Answer ``GET /page/runs``."""
        pages = Pages(number_of(request, "skip"), await self.ledger.count_runs())
        runs = await self.ledger.get_counters(await self.ledger.list_runs(AT_ONCE, skip=pages.skip))
        sight = await self.eye.see()
        return self.desk.show("runs.html.j2", caller, runs=runs, pages=pages, overview=sight.overview, at="/page/runs")

    async def dead_letters(self, request: web.Request, caller: Caller) -> web.Response:
        """Answer ``GET /page/dead-letters``: by cause, or those of one."""
        cause = request.query.get("cause", "")
        pages = Pages(number_of(request, "skip"), await self.ledger.count_dead_letters(cause))
        dead = await self.ledger.list_dead_letters(cause, AT_ONCE, skip=pages.skip)
        return self.desk.show(
            "dead_letters.html.j2",
            caller,
            causes=await self.ledger.count_causes(),
            cause=cause,
            pages=pages,
            letters=await self.ledger.get_dead_letters(dead),
            notice=notice_of(request),
            at="/page/dead-letters",
        )

    async def _now(self, caller: Caller) -> tuple[str, str]:
        """Return what changes on the first sheet, and what it is known by."""
        sight = await self.eye.see()
        text = self.desk.write("sight.html.j2", caller, sight=sight, overview=sight.overview)
        return text, hashlib.sha256(text.encode()).hexdigest()[:_DIGEST]
