"""Accept actions from this page only: browsers send the login with requests of other sites, too."""

from aiohttp import web

from scripts.serve.auth.roles import Caller, is_same_site
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
    if not is_same_site(request):
        raise HTTPError(403, "this request came from another site, so nothing was done")
    if not await signer.is_valid(token, _ACTION, caller.known_by):
        raise HTTPError(403, "the form belongs to another page or login; reload the page")
