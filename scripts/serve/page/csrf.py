"""Was it our own page that asked? A browser sends the login along with whatever another site makes it send."""

from urllib.parse import urlsplit

from aiohttp import web

from scripts.serve.auth.roles import Caller
from scripts.serve.http.responses import HTTPError
from scripts.serve.page.signer import PageSigner

_ACTION = "action"


async def token_for(signer: PageSigner, caller: Caller) -> str:
    """Return what a form of ours shows to prove that we made it, for this caller."""
    return await signer.sign(_ACTION, caller.known_by)


async def check_origin(request: web.Request, signer: PageSigner, caller: Caller, token: str) -> None:
    """See that an action was asked for on a page of ours.

    Args:
        token: the token that came with it.

    Raises:
        HTTPError: it was not, or nobody can tell.
    """
    if not _same_site(request):
        raise HTTPError(403, "this was asked for by another site, so nothing was done")
    if not await signer.is_valid(token, _ACTION, caller.known_by):
        raise HTTPError(403, "this form is not one of ours, or of another login; load the page again")


def _same_site(request: web.Request) -> bool:
    """Return whether a browser says so; a program says nothing of it."""
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        return site == "same-origin"
    # Browsers do not send it over plain HTTP.
    origin = request.headers.get("Origin")
    return origin is None or urlsplit(origin).netloc == request.host
