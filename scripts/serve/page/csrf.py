"""Accept actions from this page only: browsers send the login with requests of other sites, too."""

from urllib.parse import urlsplit

from aiohttp import web

from scripts.serve.auth.roles import Caller
from scripts.serve.http.responses import HTTPError
from scripts.serve.page.signer import PageSigner

_ACTION = "action"


async def token_for(signer: PageSigner, caller: Caller) -> str:
    """Return the token of a form, which is valid for this caller only."""
    return await signer.sign(_ACTION, caller.known_by)


async def check_origin(request: web.Request, signer: PageSigner, caller: Caller, token: str) -> None:
    """Check that a form of this page asked for an action.

    Args:
        token: the token of the form.

    Raises:
        HTTPError: another site asked for it, or the token is not valid.
    """
    if not _same_site(request):
        raise HTTPError(403, "another site asked for this, so nothing was done")
    if not await signer.is_valid(token, _ACTION, caller.known_by):
        raise HTTPError(403, "the form is not of this page, or of another login; load the page again")


def _same_site(request: web.Request) -> bool:
    """Return whether the request comes from this site; programs send neither header, and pass."""
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        return site == "same-origin"
    # Browsers do not send it over plain HTTP.
    origin = request.headers.get("Origin")
    return origin is None or urlsplit(origin).netloc == request.host
