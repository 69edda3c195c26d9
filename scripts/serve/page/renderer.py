"""What every sheet of the page is made on: templates, headers, who is asking and what they may do."""

import functools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version

from aiohttp import web
from aiohttp.typedefs import Handler
from jinja2 import Environment, PackageLoader, StrictUndefined

from scripts.console.formatting import format_bytes, format_duration
from scripts.serve.auth.roles import CALLER, Caller, Role
from scripts.serve.http.responses import HTTPError, to_http_error
from scripts.serve.page.assets import Assets
from scripts.serve.page.run_bar import bar_segments
from worker.config.accounts import Accounts

HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    # With "no-referrer" a form would not say from where it comes, either.
    "Referrer-Policy": "same-origin",
    "Server": "docv-archive",
    "X-Content-Type-Options": "nosniff",
}
"""Headers of whatever the page answers."""

View = Callable[[web.Request, Caller], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class PageRenderer:
    """Makes sheets; on a page that is read only nobody may act."""

    accounts: Accounts
    assets: Assets
    read_only: bool
    templates: Environment

    def may_act(self, caller: Caller) -> bool:
        """Return whether somebody may change what is under way."""
        return caller.role is Role.OPERATOR and not self.read_only

    def check_may_act(self, caller: Caller) -> None:
        """See that somebody may act.

        Raises:
            HTTPError: they may not.
        """
        if caller.role is not Role.OPERATOR:
            raise HTTPError(403, "only operators may do this")
        if self.read_only:
            raise HTTPError(403, "this page is read only: docv-archive serve was started with --read-only")

    def render(self, template: str, caller: Caller, **facts: object) -> str:
        """Return a template filled in."""
        return self.templates.get_template(template).render(
            asset=self.assets.path,
            caller=caller,
            accounts=self.accounts.names,
            environments=sorted({each.settings.environment for each in self.accounts}),
            may_act=self.may_act(caller),
            read_only=self.read_only,
            version=version("docv-archive"),
            now=datetime.now(UTC),
            **facts,
        )

    def respond(self, template: str, caller: Caller, **facts: object) -> web.Response:
        """Return a sheet as an answer."""
        return web.Response(text=self.render(template, caller, **facts), content_type="text/html", headers=HEADERS)

    def for_persons(self, view: View) -> Handler:
        """Return a view as a handler: for operators and viewers, and with errors that a person can read."""

        async def answer(request: web.Request) -> web.StreamResponse:
            caller = request[CALLER]
            try:
                _need_person(caller)
                return await view(request, caller)
            except Exception as error:  # noqa: BLE001  # translated as at the edge, and told as a page
                refused = to_http_error(error)
                response = self.respond("error.html.j2", caller, error=refused)
                response.set_status(refused.status)
                response.headers.update(refused.headers)
                if refused.close:
                    response.force_close()
                return response

        return answer


def _need_person(caller: Caller) -> None:
    if caller.role is Role.PRODUCER:
        raise HTTPError(403, "this page is for operators and viewers")


@functools.cache
def templates() -> Environment:
    """Return how sheets look; everything that is filled in is text, whatever it holds."""
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=PackageLoader("scripts.serve.page"),
    )
    environment.filters |= {
        "amount": format_bytes,
        "count": "{:,}".format,
        "duration": format_duration,
        "moment": _moment,
        "bar_segments": bar_segments,
    }
    return environment


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")
