"""Show the result of an action on the next page; the URL holds only counts and fixed words."""

from urllib.parse import urlencode

from aiohttp import web

from scripts.serve.page.paging import number_of


def add_flash(path: str, did: str, count: int, left: int = 0) -> str:
    """Return the URL of the page after an action.

    Args:
        path: the page.
        did: ``resumed``, ``cancelled``, ``redriven`` or ``dropped``.
        count: number of items that were acted on.
        left: number of items that are left, or in flight.
    """
    return f"{path}?{urlencode({'did': did, 'count': count, 'left': left})}"


def read_flash(request: web.Request) -> str | None:
    """Return a sentence about the action that the URL names."""
    count, left = number_of(request, "count"), number_of(request, "left")
    rest = f" {left:,} are left: repeat the action." if left else ""
    match request.query.get("did"):
        case "resumed":
            return "Resumed." if count else "It was no longer on hold."
        case "cancelled":
            return f"{count:,} cancelled." + (f" {left:,} in flight finish and are not tried again." if left else "")
        case "redriven":
            return f"{count:,} redriven; workers try them again within seconds.{rest}"
        case "dropped":
            return f"{count:,} dropped.{rest}"
    return None
