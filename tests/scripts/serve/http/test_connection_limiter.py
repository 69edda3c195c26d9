"""Open connections are limited, and requests under way end before the server closes."""

import asyncio

from scripts.serve.http.connection_limiter import ConnectionLimiter
from scripts.serve.http.limits import HttpLimits


class Connection:
    """A connection that records that it was closed for another one."""

    has_ended = False

    def close_for_another(self) -> None:
        self.has_ended = True


def test_connections_with_a_secret_stay_open_when_the_limit_is_reached() -> None:
    limiter = ConnectionLimiter(HttpLimits(connections=3, connections_per_address=2))
    first, *others = (Connection() for _ in range(6))

    def enter(connection: Connection, address: str) -> bool:
        is_admitted = limiter.enter(connection, address)
        limiter.trust(connection)
        return is_admitted

    assert [enter(*each) for each in zip((first, *others), "aaabc", strict=False)] == [True, True, False, True, False]
    limiter.leave(first, "a")
    assert enter(Connection(), "c")
    assert not any(each.has_ended for each in others)


def test_the_oldest_connection_without_a_secret_is_closed_when_the_limit_is_reached() -> None:
    limiter = ConnectionLimiter(HttpLimits(connections=3, connections_per_address=2))
    first, second, third, fourth, fifth = (Connection() for _ in range(5))
    assert limiter.enter(first, "a")
    assert limiter.enter(second, "a")
    assert limiter.enter(third, "a")
    assert [each.has_ended for each in (first, second, third)] == [True, False, False]
    limiter.leave(first, "a")
    limiter.trust(second)
    assert limiter.enter(fourth, "b")
    assert limiter.enter(fifth, "c")
    assert [each.has_ended for each in (second, third, fourth, fifth)] == [False, True, False, False]


async def test_close_returns_when_the_last_request_is_answered() -> None:
    limiter = ConnectionLimiter(HttpLimits())
    limiter.request_started()
    limiter.request_started()
    closing = asyncio.create_task(limiter.close())
    limiter.request_ended()
    await asyncio.sleep(0)
    assert not closing.done()
    limiter.request_ended()
    async with asyncio.timeout(5):
        await closing
    assert limiter.closing


async def test_close_returns_at_its_deadline() -> None:
    limiter = ConnectionLimiter(HttpLimits(shutdown_seconds=0.01))
    limiter.request_started()
    await limiter.close()
    await ConnectionLimiter(HttpLimits()).close()
