"""Limit a connection: slow headers and unread responses close it, and a limiter bounds the number of connections.

aiohttp ends idle connections and incomplete requests after its keep-alive time. It has no shorter deadline for headers
that have begun, and no limit on the number of connections.
"""

import asyncio
import enum
import ipaddress
from collections.abc import Callable
from http import HTTPStatus

import structlog
from aiohttp import web

from scripts.serve.http.connection_limiter import ConnectionLimiter
from scripts.serve.http.limits import HttpLimits
from scripts.serve.http.responses import HTTPError, error_response

_log = structlog.get_logger("docv.serve")
_LINE_BYTES = 8_190
_HEADERS = 64
_LINGER_SECONDS = 2.0
_IPV6_BITS = 64
_PUBLIC_PATH = "/livez"


class CloseReason(enum.StrEnum):
    """Why the server ended a connection."""

    NO_ROOM = "no_room"
    SLOW_HEAD = "slow_head"
    MALFORMED = "malformed"
    NOT_TAKEN = "not_taken"


class HttpConnection(web.RequestHandler):
    """aiohttp's protocol, with a deadline for headers and a slot of the limiter.

    The first bytes of a request that arrive in one piece with the end of the previous body are not noticed; the
    keep-alive time ends such a connection.

    Args:
        limiter: grants the slot.
        ended: called with the reason when the server ends the connection.
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
            access_log=None,  # type: ignore[arg-type]  # None disables it, as in AppRunner
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
        self._read_deadline: asyncio.TimerHandle | None = None
        self._answering: web.BaseRequest | None = None
        self._next_has_begun = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take a slot and wait for the first request, or end the connection."""
        address = _address_of(transport)
        if not self._limiter.enter(self, address):
            self._ended(CloseReason.NO_ROOM)
            _abort(transport)
            return
        self._address = address
        if isinstance(transport, asyncio.WriteTransport):
            # `pause_writing` is then called as soon as the client does not read everything at once.
            transport.set_write_buffer_limits(high=0)
        super().connection_made(transport)
        self._await_head()

    def pause_writing(self) -> None:
        """Start the deadline for the client to read the response."""
        super().pause_writing()
        if self._read_deadline is None:
            self._read_deadline = self._loop.call_later(self._limits.answer_seconds, self._cut, CloseReason.NOT_TAKEN)

    def resume_writing(self) -> None:
        """Stop that deadline: the client has read everything."""
        super().resume_writing()
        self._forget_answer()

    def data_received(self, data: bytes) -> None:
        """Process bytes; the first bytes of a request start the deadline of its headers."""
        if self._address is None:
            return
        whole = self._answering is not None and self._answering.content.is_eof()
        super().data_received(data)
        if self._answering is None:
            self._await_head()
        elif whole:
            self._next_has_begun = True

    def connection_lost(self, exc: BaseException | None) -> None:
        """Return the slot."""
        if self._address is None:
            return
        self._forget_deadline()
        self._forget_answer()
        self._limiter.leave(self, self._address)
        self._address = None
        super().connection_lost(exc)

    def close_for_another(self) -> None:
        """Close the connection in favour of a new one."""
        self._cut(CloseReason.NO_ROOM)

    def on_request(self, request: web.BaseRequest) -> None:
        """Stop the deadline: the headers of a request are complete."""
        self._forget_deadline()
        self._limiter.request_started()
        self._answering, self._next_has_begun = request, False

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send a response, and wait for the next request."""
        if resp.status == HTTPStatus.EXPECTATION_FAILED:
            # aiohttp answers so for a path without a route, before the login.
            resp = error_response(
                HTTPError(HTTPStatus.UNAUTHORIZED, "send a valid secret in the Authorization header", close=True)
            )
        if resp.status < HTTPStatus.BAD_REQUEST and request.path != _PUBLIC_PATH:
            self._limiter.trust(self)
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
        """Answer a malformed request; the log line and the response of aiohttp would repeat its bytes."""
        self._ended(CloseReason.MALFORMED)
        _log.warning("request.malformed", error=type(exc).__name__)
        if request.writer.output_size > 0:
            raise ConnectionError("the response has already started")
        return error_response(HTTPError(status, "this is not a valid HTTP request", close=True))

    def log_exception(self, *_: object, **facts: object) -> None:
        """Log only the class of an error."""
        _log.error("connection.failed", error=type(facts.get("exc_info")).__name__)

    def _await_head(self) -> None:
        if self._deadline is None and self._address is not None:
            self._deadline = self._loop.call_later(self._limits.head_seconds, self._cut, CloseReason.SLOW_HEAD)

    def _forget_deadline(self) -> None:
        if self._deadline:
            self._deadline.cancel()
            self._deadline = None

    def _forget_answer(self) -> None:
        if self._read_deadline:
            self._read_deadline.cancel()
            self._read_deadline = None

    def _cut(self, reason: CloseReason) -> None:
        self._ended(reason)
        _abort(self.transport)


def _abort(transport: asyncio.BaseTransport | None) -> None:
    if isinstance(transport, asyncio.WriteTransport):
        transport.abort()


def _address_of(transport: asyncio.BaseTransport) -> str:
    """Return the address that a connection counts for: in IPv6 the /64 network, which belongs to one site."""
    peer = transport.get_extra_info("peername")
    try:
        address = ipaddress.ip_address(peer[0])
    except (TypeError, IndexError, ValueError):
        return ""
    return str(ipaddress.ip_network((address, _IPV6_BITS), strict=False)) if address.version == 6 else str(address)  # noqa: PLR2004
