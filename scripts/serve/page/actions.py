"""What a person can do: end a hold, try dead letters anew, drop them. First it is asked whether it is meant."""

import time
from dataclasses import dataclass
from typing import Literal
from urllib.parse import parse_qs

from aiohttp import web
from redis.asyncio import Redis

from scripts.overview.release_holds import end_hold
from scripts.serve.api.evaluations import read_eval_id
from scripts.serve.auth.roles import Caller
from scripts.serve.http.body import read_body
from scripts.serve.http.limits import HttpLimits
from scripts.serve.http.responses import HTTPError
from scripts.serve.page.audit_log import acted
from scripts.serve.page.csrf import check_origin, token_for
from scripts.serve.page.flash import address
from scripts.serve.page.overview_cache import OverviewCache
from scripts.serve.page.renderer import HEADERS, PageRenderer
from scripts.serve.page.signer import Signer
from tasks.ledger.ledger import Ledger
from tasks.resilience.holds import Holds

_AT_ONCE = 1_000
_SECONDS = 20.0

Deed = Literal["redriven", "dropped"]


@dataclass(frozen=True, slots=True)
class Actions:
    """The buttons.

    Attributes:
        desk: what sheets are made on.
        redis: where holds and dead letters are.
        signer: knows forms of ours.
        eye: what has to look anew.
        bounds: how large a form may be.
        seconds: longest time for the dead letters of a cause; the rest is left to another time.
    """

    desk: PageRenderer
    redis: "Redis"
    signer: Signer
    eye: OverviewCache
    bounds: HttpLimits
    seconds: float = _SECONDS

    async def ask_resume(self, request: web.Request, caller: Caller) -> web.Response:
        """Answer ``GET /page/resume``: is it meant?"""
        self.desk.need_act(caller)
        hold = await Holds(self.redis).get(_one(request.query.get("scope"), "scope"))
        return await self._ask("ask_resume.html.j2", caller, hold=hold)

    async def resume(self, request: web.Request, caller: Caller) -> web.Response:
        """Answer ``POST /page/resume``."""
        form = await self._form(request, caller)
        scope = _one(form.get("scope"), "scope")
        ended = await end_hold(self.redis, scope)
        acted(caller, "resumed", scope=scope, ended=ended)
        return self._done(address("/", "resumed", int(ended)))

    async def ask_redrive(self, request: web.Request, caller: Caller) -> web.Response:
        """Answer ``GET /page/redrive``: is it meant?"""
        return await self._ask_of_dead(request, caller, "redrive")

    async def redrive(self, request: web.Request, caller: Caller) -> web.Response:
        """Answer ``POST /page/redrive``."""
        return await self._do(request, caller, "redriven")

    async def ask_drop(self, request: web.Request, caller: Caller) -> web.Response:
        """Answer ``GET /page/drop``: is it meant?"""
        return await self._ask_of_dead(request, caller, "drop")

    async def drop(self, request: web.Request, caller: Caller) -> web.Response:
        """Answer ``POST /page/drop``."""
        return await self._do(request, caller, "dropped")

    async def _ask_of_dead(self, request: web.Request, caller: Caller, action: str) -> web.Response:
        self.desk.need_act(caller)
        ledger, eval_id = Ledger(self.redis), request.query.get("eval_id")
        if eval_id:
            cause, meant = None, len(await ledger.get_dead_letters([read_eval_id(eval_id)]))
        else:
            cause = _one(request.query.get("cause"), "cause")
            meant = await ledger.count_dead_letters(cause)
        return await self._ask("ask_dead.html.j2", caller, action=action, eval_id=eval_id, cause=cause, meant=meant)

    async def _ask(self, template: str, caller: Caller, **facts: object) -> web.Response:
        token = await token_for(self.signer, caller)
        return self.desk.show(template, caller, token=token, at=None, **facts)

    async def _do(self, request: web.Request, caller: Caller, deed: Deed) -> web.Response:
        form = await self._form(request, caller)
        if text := form.get("eval_id"):
            eval_id = read_eval_id(text)
            count, left = len(await self._each(deed, [eval_id])), 0
            acted(caller, deed, count=count, eval_id=eval_id)
        else:
            cause = _one(form.get("cause"), "cause")
            count, left = await self._all_of(deed, cause)
            acted(caller, deed, count=count, left=left, cause=cause)
        return self._done(address("/page/dead-letters", deed, count, left))

    async def _all_of(self, deed: Deed, cause: str) -> tuple[int, int]:
        """Do it to all that died of a cause; return to how many, and how many are left of them.

        A thousand are one step of Redis. Those that die anew meanwhile are not meant.
        """
        ledger, until = Ledger(self.redis), time.monotonic() + self.seconds
        meant, count = await ledger.count_dead_letters(cause), 0
        while count < meant:
            some = await ledger.list_dead_letters(cause, min(_AT_ONCE, meant - count))
            done = await self._each(deed, some)
            count += len(done)
            if not done or time.monotonic() > until:
                break
        return count, min(meant - count, await ledger.count_dead_letters(cause))

    async def _each(self, deed: Deed, eval_ids: list[str]) -> list[str]:
        ledger = Ledger(self.redis)
        return await (
            ledger.redrive_dead_letters(eval_ids) if deed == "redriven" else ledger.drop_dead_letters(eval_ids)
        )

    async def _form(self, request: web.Request, caller: Caller) -> dict[str, str]:
        """Return the fields of a form of ours, of somebody who may act.

        Raises:
            HTTPError: it is none, or they may not.
        """
        self.desk.need_act(caller)
        body = await read_body(request, self.bounds)
        try:
            fields = parse_qs(body.decode(), max_num_fields=8)
        except ValueError:
            raise HTTPError(400, "this is no form of ours") from None
        form = {name: values[0] for name, values in fields.items()}
        await check_origin(request, self.signer, caller, form.get("token", ""))
        return form

    def _done(self, where: str) -> web.Response:
        """Have the browser go on with a look, so that loading anew does nothing twice."""
        self.eye.forget()
        return web.Response(status=303, headers={**HEADERS, "Location": where})


def _one(text: str | None, name: str) -> str:
    if not text:
        raise HTTPError(400, f"{name} is missing")
    return text
