"""Deliver an answer whole, late, slowly, or only in part."""

import asyncio
import socket
import struct
from typing import assert_never

from aiohttp import web

from scripts.simulator.answers import Delivery, SimulatedResponse

_PIECES = 20
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


async def deliver(request: web.Request, answer: SimulatedResponse, slow_seconds: float) -> web.StreamResponse:
    """Deliver an answer as its ``delivery`` says.

    Args:
        request: the request that is answered.
        answer: the answer, and how to deliver it.
        slow_seconds: how long a slow delivery takes.
    """
    match answer.delivery:
        case Delivery.WHOLE:
            return _whole(answer)
        case Delivery.LATE:
            await asyncio.sleep(slow_seconds)
            return _whole(answer)
        case Delivery.DRIBBLE:
            return await _dribble(request, answer, slow_seconds)
        case Delivery.CUT:
            return await _half(request, answer)
        case Delivery.RESET:
            # A socket that does not linger sends RST when it is closed, not FIN.
            if request.transport is not None:
                connection = request.transport.get_extra_info("socket")
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            return await _half(request, answer)
        case _:
            assert_never(answer.delivery)


def _whole(answer: SimulatedResponse) -> web.Response:
    return web.Response(status=answer.status, body=answer.body, headers=answer.headers)


async def _begin(request: web.Request, answer: SimulatedResponse) -> web.StreamResponse:
    """Send the headers, with the length of the whole body."""
    response = web.StreamResponse(status=answer.status, headers=answer.headers)
    response.content_length = len(answer.body)
    await response.prepare(request)
    return response


async def _dribble(request: web.Request, answer: SimulatedResponse, slow_seconds: float) -> web.StreamResponse:
    response = await _begin(request, answer)
    step = -(-len(answer.body) // _PIECES)
    for start in range(0, len(answer.body), step):
        await asyncio.sleep(slow_seconds / _PIECES)
        await response.write(answer.body[start : start + step])
    return response


async def _half(request: web.Request, answer: SimulatedResponse) -> web.StreamResponse:
    response = await _begin(request, answer)
    response.force_close()
    await response.write(answer.body[: len(answer.body) // 2])
    return response
