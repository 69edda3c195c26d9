"""List the bundles in quarantine with the outcomes of their evaluations."""

import asyncio
import re
from dataclasses import dataclass

from aiohttp import web

from scripts.archive_access.quarantine import read_quarantine_page
from scripts.serve.auth.access_log import logged_access
from scripts.serve.auth.accounts import resolve_account
from scripts.serve.auth.roles import Caller
from scripts.serve.page.paging import AT_ONCE
from scripts.serve.page.renderer import PageRenderer
from tasks.errors import StorageError
from tasks.storage.bucket import Bucket
from worker.config.accounts import Accounts

_SECONDS = 10.0
_REFERENCE = re.compile(r"[0-9a-f-]{36}/[0-9a-f]{64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class QuarantineView:
    """The page of the quarantine."""

    renderer: PageRenderer
    bucket: Bucket
    accounts: Accounts

    async def show(self, request: web.Request, caller: Caller) -> web.Response:
        """Answer ``GET /page/quarantine``: one page of bundles, in the order of their keys."""
        name, after = request.query.get("account") or None, request.query.get("after", "")
        account = resolve_account(self.accounts, name, 400)
        after = after if _REFERENCE.fullmatch(after) else ""
        with logged_access(request, caller, "quarantine.viewed", after=after):
            try:
                async with asyncio.timeout(_SECONDS):
                    bundles, has_more = await read_quarantine_page(
                        self.bucket, account.settings.environment, after=after, count=AT_ONCE
                    )
            except TimeoutError:
                raise StorageError("list", "timeout") from None
        return self.renderer.respond(
            "quarantine.html.j2",
            caller,
            bundles=bundles,
            account=account.name if name else None,
            next_after=bundles[-1].reference if has_more else None,
            at="/page/quarantine",
        )
