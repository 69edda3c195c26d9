"""What came of an action, told on the sheet that follows it; the address carries figures and words of ours only."""

from urllib.parse import urlencode

from aiohttp import web

from scripts.serve.page.paging import number_of


def add_flash(path: str, did: str, count: int, left: int = 0) -> str:
    """Return where to go after an action.

    Args:
        path: the sheet.
        did: ``resumed``, ``cancelled``, ``redriven`` or ``dropped``.
        count: how many.
        left: how many of those that were meant are still there, or in flight.
    """
    return f"{path}?{urlencode({'did': did, 'count': count, 'left': left})}"


def read_flash(request: web.Request) -> str | None:
    """Return what the address says was done, in a sentence."""
    count, left = number_of(request, "count"), number_of(request, "left")
    rest = f" {left:,} are left: do it once more." if left else ""
    match request.query.get("did"):
        case "resumed":
            return "It goes on." if count else "It was not on hold any more."
        case "cancelled":
            return f"{count:,} cancelled." + (f" {left:,} in flight end, and are not tried again." if left else "")
        case "redriven":
            return f"{count:,} tried anew; a worker takes them up within seconds of running.{rest}"
        case "dropped":
            return f"{count:,} dropped.{rest}"
    return None
