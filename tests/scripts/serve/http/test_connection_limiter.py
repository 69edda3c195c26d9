"""A room has its bounds, and is left in order."""

import asyncio

from scripts.serve.http.connection_limiter import ConnectionLimiter
from scripts.serve.http.limits import HttpLimits


def test_a_room_knows_how_many_are_in_it() -> None:
    room = ConnectionLimiter(HttpLimits(connections=3, connections_per_address=2))
    assert [room.enter(address) for address in ("a", "a", "a", "b", "c")] == [True, True, False, True, False]
    room.leave("a")
    assert room.enter("c")


async def test_a_room_closes_when_the_last_request_is_answered() -> None:
    room = ConnectionLimiter(HttpLimits())
    room.request_started()
    room.request_started()
    closing = asyncio.create_task(room.close())
    room.request_ended()
    await asyncio.sleep(0)
    assert not closing.done()
    room.request_ended()
    async with asyncio.timeout(5):
        await closing
    assert room.closing


async def test_a_room_does_not_wait_for_ever() -> None:
    room = ConnectionLimiter(HttpLimits(shutdown_seconds=0.01))
    room.request_started()
    await room.close()
    await ConnectionLimiter(HttpLimits()).close()
