"""One connection: who sends headers slowly is cut, and nobody takes all the room.

aiohttp ends an idle connection, and one without a whole request, after its keep-alive time, but knows no shorter one
for headers that have begun, and no bound for how many connections there are.
"""

import asyncio
import enum
import ipaddress
from collections.abc import Callable

import structlog
from aiohttp import web

from scripts.serve.http.connection_limiter import ConnectionLimiter
from scripts.serve.http.limits import HttpLimits
from scripts.serve.http.responses import HTTPError, error_response

_log = structlog.get_logger("docv.serve")
_LINE_BYTES = 8_190
_HEADERS = 64
_LINGER_SECONDS = 2.0
_HOME = 64


class CloseReason(enum.StrEnum):
    """Why we ended a connection."""

    NO_ROOM = "no_room"
    SLOW_HEAD = "slow_head"
    MALFORMED = "malformed"


class HttpConnection(web.RequestHandler):
    """aiohttp's protocol, with a deadline for headers and a place in the room.

    A request's first bytes that come in one piece with the end of the body before are not seen; such a connection
    is cut by the keep-alive time.

    Args:
        limiter: where it takes its place.
        ended: told when it is we who end it.
    """

    def __init__(
        self,
        server: web.Server,
        limiter: ConnectionLimiter,
        limits: HttpLimits,
        ended: Callable[[CloseReason], None],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        super().__init__(
            server,
            loop=loop,
            access_log=None,  # type: ignore[arg-type]  # as AppRunner says "none"
            keepalive_timeout=limits.idle_seconds,
            lingering_time=_LINGER_SECONDS,
            max_line_size=_LINE_BYTES,
            max_field_size=_LINE_BYTES,
            max_headers=_HEADERS,
            auto_decompress=False,
        )
        self._limiter, self._limits, self._ended = limiter, limits, ended
        self._address: str | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._answering: web.BaseRequest | None = None
        self._next_has_begun = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take a place and wait for the first request, or go."""
        address = _address_of(transport)
        if not self._limiter.enter(address):
            self._ended(CloseReason.NO_ROOM)
            _abort(transport)
            return
        self._address = address
        super().connection_made(transport)
        self._await_head()

    def data_received(self, data: bytes) -> None:
        """Take bytes; the first ones of a request begin its deadline."""
        if self._address is None:
            return
        whole = self._answering is not None and self._answering.content.is_eof()
        super().data_received(data)
        if self._answering is None:
            self._await_head()
        elif whole:
            self._next_has_begun = True

    def connection_lost(self, exc: BaseException | None) -> None:
        """Give the place back."""
        if self._address is None:
            return
        self._forget_deadline()
        self._limiter.leave(self._address)
        self._address = None
        super().connection_lost(exc)

    def on_request(self, request: web.BaseRequest) -> None:
        """The headers of a request are there."""
        self._forget_deadline()
        self._limiter.request_started()
        self._answering, self._next_has_begun = request, False

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send an answer, and wait for the next request."""
        if self._limiter.closing:
            resp.force_close()
        try:
            sent = await super().finish_response(request, resp, start_time)
        finally:
            if self._answering is not None:
                self._answering = None
                self._limiter.request_ended()
        if self._next_has_begun:
            self._await_head()
        return sent

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002  # as aiohttp calls it
    ) -> web.StreamResponse:
        """Answer what is no HTTP; what aiohttp would log and answer repeats what came in."""
        self._ended(CloseReason.MALFORMED)
        _log.warning("request.malformed", error=type(exc).__name__)
        if request.writer.output_size > 0:
            raise ConnectionError("an answer has begun already")
        return error_response(HTTPError(status, "this is no HTTP request that can be read", close=True))

    def log_exception(self, *_: object, **facts: object) -> None:
        """Log the kind of an error only."""
        _log.error("connection.failed", error=type(facts.get("exc_info")).__name__)

    def _await_head(self) -> None:
        if self._deadline is None and self._address is not None:
            self._deadline = self._loop.call_later(self._limits.head_seconds, self._cut)

    def _forget_deadline(self) -> None:
        if self._deadline:
            self._deadline.cancel()
            self._deadline = None

    def _cut(self) -> None:
        self._deadline = None
        self._ended(CloseReason.SLOW_HEAD)
        _abort(self.transport)


def _abort(transport: asyncio.BaseTransport | None) -> None:
    if isinstance(transport, asyncio.WriteTransport):
        transport.abort()


def _address_of(transport: asyncio.BaseTransport) -> str:
    """Return whom a connection counts for: in IPv6 a whole network belongs to one home."""
    peer = transport.get_extra_info("peername")
    try:
        address = ipaddress.ip_address(peer[0])
    except (TypeError, IndexError, ValueError):
        return ""
    return str(ipaddress.ip_network((address, _HOME), strict=False)) if address.version == 6 else str(address)  # noqa: PLR2004
