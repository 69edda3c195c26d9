"""Render pages from templates, with security headers, for a caller and the caller's role."""

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
from scripts.serve.page.labels import label, label_text, meaning
from scripts.serve.page.run_bar import bar_segments
from scripts.serve.page.texts import ago, both, breakable, exact, show_invisible
from worker.config.accounts import Accounts

HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    # With "no-referrer" browsers would also send "Origin: null" with forms.
    "Referrer-Policy": "same-origin",
    "Server": "docv-archive",
    "X-Content-Type-Options": "nosniff",
}
"""Headers of every response of the page."""

View = Callable[[web.Request, Caller], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class PageRenderer:
    """Renders pages; if ``read_only`` is set, no caller may act."""

    accounts: Accounts
    assets: Assets
    read_only: bool
    templates: Environment

    @property
    def prefix(self) -> str:
        """The path prefix of all URLs, as browsers see them."""
        return str(self.templates.globals["prefix"])

    def may_act(self, caller: Caller) -> bool:
        """Return whether a caller may run actions."""
        return caller.role is Role.OPERATOR and not self.read_only

    def check_may_act(self, caller: Caller) -> None:
        """Check that a caller may run actions.

        Raises:
            HTTPError: the caller may not.
        """
        if caller.role is not Role.OPERATOR:
            raise HTTPError(403, "only operators may do this")
        if self.read_only:
            raise HTTPError(403, "this page is read only: docv-archive serve was started with --read-only")

    def render(self, template: str, caller: Caller, **facts: object) -> str:
        """Return a rendered template."""
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
        """Return a rendered page as a response."""
        return web.Response(text=self.render(template, caller, **facts), content_type="text/html", headers=HEADERS)

    def as_page_handler(self, view: View) -> Handler:
        """Return a view as a handler for operators and viewers; it answers errors with a page."""

        async def answer(request: web.Request) -> web.StreamResponse:
            caller = request[CALLER]
            try:
                _require_person(caller)
                return await view(request, caller)
            except Exception as error:  # noqa: BLE001  # translated as for the API, and shown as a page
                refused = to_http_error(error)
                response = self.respond("error.html.j2", caller, error=refused)
                response.set_status(refused.status)
                response.headers.update(refused.headers)
                if refused.close:
                    response.force_close()
                return response

        return answer


def _require_person(caller: Caller) -> None:
    if caller.role is Role.PRODUCER:
        raise HTTPError(403, "only operators and viewers may see this page")


@functools.cache
def templates(prefix: str = "") -> Environment:
    """Return the templates; they escape every value.

    Args:
        prefix: path prefix of all links, as browsers see them.
    """
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=PackageLoader("scripts.serve.page"),
        finalize=show_invisible,
    )
    environment.globals["prefix"] = prefix
    environment.filters |= {
        "amount": format_bytes,
        "count": "{:,}".format,
        "duration": format_duration,
        "ago": ago,
        "both": both,
        "exact": exact,
        "breakable": breakable,
        "label": label,
        "label_text": label_text,
        "meaning": meaning,
        "bar_segments": bar_segments,
    }
    return environment
