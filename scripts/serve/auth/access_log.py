"""Write the access log `docv.access`: a line before each access or action, and one after it.

Lines hold IDs, hashes and counts, never a name from a bundle. All lines of a request share its `request_id`.
"""

import contextlib
from collections.abc import Iterator

import structlog
from aiohttp import web

from scripts.serve.auth.roles import CALLER, Caller, Role
from scripts.serve.http.responses import HTTPError

_log = structlog.get_logger("docv.access")
REQUEST_ID = web.RequestKey("request_id", str)
"""The ID that all lines of a request share."""


@contextlib.contextmanager
def logged_access(request: web.Request, caller: Caller, action: str, **facts: object) -> Iterator[dict[str, object]]:
    """Log an access before the block runs, and afterwards under the name of the action, or as failed.

    Args:
        action: name of the event, such as ``action.dropped``.
        facts: what is accessed.

    Yields:
        A dict whose items the block adds to the last line.
    """
    known = _known(request, caller)
    _log.info("access.begun", action=action, **known, **facts)
    found: dict[str, object] = {}
    try:
        yield found
    except BaseException as error:
        status = error.status if isinstance(error, HTTPError) else None
        _log.warning(
            "access.failed", action=action, **known, **facts | found, status=status, error=type(error).__name__
        )
        raise
    _log.info(action, **known, **facts | found)


def log_refused(request: web.Request, route: str, status: int) -> None:
    """Log that a request was refused: no valid secret, or not the role for it."""
    _log.warning("access.refused", **_known(request, request.get(CALLER)), route=route, status=status)


def producer(known_by: str) -> Caller:
    """Return the caller with a producer's secret.

    Args:
        known_by: hash of the secret.
    """
    return Caller(f"token-{known_by[:8]}", Role.PRODUCER, known_by)


def _known(request: web.Request, caller: Caller | None) -> dict[str, object]:
    who = {"actor": caller.name, "role": caller.role.name.lower()} if caller else {"actor": None, "role": None}
    return {**who, "request_id": request.get(REQUEST_ID)}
