"""Messages and events that were rejected, the newest first."""

import re
from dataclasses import dataclass

from aiohttp import web

from scripts.serve.auth.access_log import logged_access
from scripts.serve.auth.roles import Caller
from scripts.serve.page.paging import AT_ONCE
from scripts.serve.page.renderer import PageRenderer
from tasks.ledger.rejected_messages import RejectedMessages

_NAME = re.compile(r"[0-9]{1,15}-[0-9]{1,15}", re.ASCII)


@dataclass(frozen=True, slots=True)
class RejectedView:
    """The page of rejected messages."""

    renderer: PageRenderer
    rejected: RejectedMessages

    async def show(self, request: web.Request, caller: Caller) -> web.Response:
        """Answer ``GET /page/rejected``."""
        before = request.query.get("before", "")
        before = before if _NAME.fullmatch(before) else ""
        with logged_access(request, caller, "rejected.viewed", before=before):
            messages = await self.rejected.list_newest(AT_ONCE + 1, before=before)
        return self.renderer.respond(
            "rejected.html.j2",
            caller,
            messages=messages[:AT_ONCE],
            total=await self.rejected.count(),
            next_before=messages[AT_ONCE - 1].name if len(messages) > AT_ONCE else None,
            at="/page/rejected",
        )
