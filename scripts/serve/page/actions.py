"""Run the actions of operators, each after a confirmation: resume, cancel, redrive and drop."""

import time
from dataclasses import asdict, dataclass
from typing import Literal
from urllib.parse import parse_qs

from aiohttp import web
from redis.asyncio import Redis

from scripts.overview.cancel_run import StoppedRun, record_cancellation, stop_run
from scripts.overview.release_holds import end_hold, find_hold
from scripts.serve.api.evaluations import read_eval_id
from scripts.serve.auth.access_log import logged_access
from scripts.serve.auth.roles import Caller
from scripts.serve.http.body import read_body
from scripts.serve.http.limits import HttpLimits
from scripts.serve.http.responses import HTTPError
from scripts.serve.page.csrf import check_origin, token_for
from scripts.serve.page.flash import add_flash
from scripts.serve.page.overview_cache import OverviewCache
from scripts.serve.page.renderer import HEADERS, PageRenderer
from scripts.serve.page.signer import PageSigner
from tasks.errors import IntegrityError, ManifestChanged, StorageError
from tasks.ledger.cancellation import Cancellation
from tasks.ledger.ledger import Ledger
from tasks.storage.bucket import Bucket

_AT_ONCE = 1_000
_WAITING = {"queued", "parked", "held"}

Action = Literal["redriven", "dropped"]


@dataclass(frozen=True, slots=True)
class ActionViews:
    """The actions and their confirmations.

    Attributes:
        bucket: the archive's bucket, which holds the run lists.
        environment: the first environment to look for a run list in.
        seconds: time limit for the dead letters of a cause; the rest needs another request.
    """

    renderer: PageRenderer
    redis: "Redis"
    signer: PageSigner
    cache: OverviewCache
    limits: HttpLimits
    bucket: Bucket
    environment: str
    seconds: float = 20.0

    async def confirm_resume(self, request: web.Request, caller: Caller) -> web.Response:
        """Answer ``GET /page/resume``: ask for a confirmation."""
        self.renderer.check_may_act(caller)
        hold = await find_hold(self.redis, _one(request.query.get("scope"), "scope"))
        return await self._confirm("confirm_resume.html.j2", caller, hold=hold)

    async def resume(self, request: web.Request, caller: Caller) -> web.Response:
        """Answer ``POST /page/resume``."""
        form = await self._form(request, caller)
        scope = _one(form.get("scope"), "scope")
        with logged_access(request, caller, "action.resumed", scope=scope) as logged:
            logged["ended"] = ended = await end_hold(self.redis, scope)
        return self._redirect(add_flash("/", "resumed", int(ended)))

    async def confirm_cancel(self, request: web.Request, caller: Caller) -> web.Response:
        """Answer ``GET /page/cancel``: ask for a confirmation."""
        self.renderer.check_may_act(caller)
        ledger, eval_id = Ledger(self.redis), request.query.get("eval_id")
        if eval_id:
            ((state, _),) = await ledger.locate([read_eval_id(eval_id)])
            facts: dict[str, object] = {"run": None, "waiting": int(state in _WAITING), "in_flight": 0}
        else:
            run = _one(request.query.get("run"), "run")
            counters = await ledger.runs.get_counters(run)
            in_flight = counters.states["leased"]
            facts = {"run": run, "waiting": counters.pending - in_flight, "in_flight": in_flight}
        return await self._confirm("confirm_cancel.html.j2", caller, eval_id=eval_id, **facts)

    async def cancel(self, request: web.Request, caller: Caller) -> web.Response:
        """Answer ``POST /page/cancel``."""
        form = await self._form(request, caller)
        if text := form.get("eval_id"):
            eval_id = read_eval_id(text)
            with logged_access(request, caller, "action.cancelled", eval_id=eval_id) as logged:
                counts = await Cancellation(self.redis).cancel_evaluations([eval_id])
                logged.update(asdict(counts))
        else:
            run = _one(form.get("run"), "run")
            with logged_access(request, caller, "action.cancelled", run=run) as logged:
                stopped = await stop_run(self.redis, run)
                if stopped is None:
                    raise HTTPError(404, "there is no such run")
                counts = stopped.counts
                logged.update(asdict(counts))
                await self._record(stopped, caller)
        return self._redirect(add_flash("/", "cancelled", counts.cancelled, counts.in_flight))

    async def _record(self, stopped: StoppedRun, caller: Caller) -> None:
        try:
            await record_cancellation(self.bucket, stopped, caller.name, self.environment)
        except (IntegrityError, ManifestChanged, StorageError) as error:
            self.cache.clear()
            hint = f"`docv-archive cancel --run {stopped.run}` records it"
            raise HTTPError(
                502, f"the run is cancelled, but its list in the archive does not record this: {error}; {hint}"
            ) from None

    async def confirm_dead_letters(self, request: web.Request, caller: Caller, action: str) -> web.Response:
        """Answer ``GET /page/redrive`` and ``GET /page/drop``: ask for a confirmation."""
        self.renderer.check_may_act(caller)
        ledger, eval_id = Ledger(self.redis), request.query.get("eval_id")
        if eval_id:
            letters = await ledger.dead_letters.get_many([read_eval_id(eval_id)])
            cause, meant = "".join(letter.failure.cause for letter in letters), len(letters)
        else:
            cause = _one(request.query.get("cause"), "cause")
            meant = await ledger.dead_letters.count(cause)
        return await self._confirm(
            "confirm_dead_letters.html.j2", caller, action=action, eval_id=eval_id, cause=cause, meant=meant
        )

    async def _confirm(self, template: str, caller: Caller, **facts: object) -> web.Response:
        token = await token_for(self.signer, caller)
        return self.renderer.respond(template, caller, token=token, at=None, **facts)

    async def act_on_dead_letters(self, request: web.Request, caller: Caller, action: Action) -> web.Response:
        """Answer ``POST /page/redrive`` and ``POST /page/drop``."""
        form = await self._form(request, caller)
        if text := form.get("eval_id"):
            eval_id = read_eval_id(text)
            with logged_access(request, caller, f"action.{action}", eval_id=eval_id) as logged:
                count, left = len(await self._act_on(action, [eval_id])), 0
                logged["count"] = count
        else:
            cause = _one(form.get("cause"), "cause")
            with logged_access(request, caller, f"action.{action}", cause=cause) as logged:
                count, left = await self._act_on_all(action, cause, logged)
        return self._redirect(add_flash("/page/dead-letters", action, count, left))

    async def _act_on_all(self, action: Action, cause: str, logged: dict[str, object]) -> tuple[int, int]:
        """Redrive or drop the dead letters of a cause; return the number of these, and the number left.

        ``logged`` always has the count so far, in case a later step fails. Each step processes at most a thousand. Dead
        letters that appear meanwhile are not included.
        """
        ledger, until = Ledger(self.redis), time.monotonic() + self.seconds
        meant, count = await ledger.dead_letters.count(cause), 0
        while count < meant:
            some = await ledger.dead_letters.list_by_cause(cause, min(_AT_ONCE, meant - count))
            done = await self._act_on(action, some)
            count += len(done)
            logged["count"] = count
            if not done or time.monotonic() > until:
                break
        left = min(meant - count, await ledger.dead_letters.count(cause))
        logged.update(count=count, left=left)
        return count, left

    async def _act_on(self, action: Action, eval_ids: list[str]) -> list[str]:
        ledger = Ledger(self.redis)
        return await (
            ledger.dead_letters.redrive(eval_ids) if action == "redriven" else ledger.dead_letters.drop(eval_ids)
        )

    async def _form(self, request: web.Request, caller: Caller) -> dict[str, str]:
        """Return the fields of a form of this page.

        Raises:
            HTTPError: the body is not such a form, or the caller may not act.
        """
        self.renderer.check_may_act(caller)
        body = await read_body(request, self.limits)
        try:
            fields = parse_qs(body.decode(), max_num_fields=8)
        except ValueError:
            raise HTTPError(400, "this is not a form of this page") from None
        form = {name: values[0] for name, values in fields.items()}
        await check_origin(request, self.signer, caller, form.get("token", ""))
        return form

    def _redirect(self, where: str) -> web.Response:
        """Redirect to a page, so that a reload does not repeat the action."""
        self.cache.clear()
        return web.Response(status=303, headers={**HEADERS, "Location": self.renderer.prefix + where})


def _one(text: str | None, name: str) -> str:
    if not text:
        raise HTTPError(400, f"{name} is missing")
    return text
