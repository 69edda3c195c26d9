"""Connections that disconnect from a Redis that refuses writes, so that the next attempt finds the current primary.

A managed Redis demotes its old primary and points the host name to another server. Connections to the old primary stay
open and PING works on them. redis-py raises `ReadOnlyError`, and keeps such a connection forever except with Sentinel.
"""

from typing import Any

from redis.asyncio import Redis
from redis.backoff import NoBackoff
from redis.exceptions import BusyLoadingError, MasterDownError, ReadOnlyError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.retry import Retry

# redis-py has no class for these. Before version 7, Redis put the refusal into the text of a script's error.
_REFUSALS = ("UNBLOCKED ", "NOREPLICAS ", "MISCONF ")
_REFUSAL_IN_SCRIPT = " -READONLY "
_UNUSED_KEY = "docv:unused"


class NotPrimary(RedisConnectionError):
    """Redis is a replica, or refuses writes for now. The connection was closed."""


async def check_writable(redis: "Redis") -> None:
    """Send a write that changes nothing. A replica refuses it, unlike PING and reads; a full Redis accepts it.

    Raises:
        RedisError: Redis refuses writes, or does not answer.
    """
    await redis.delete(_UNUSED_KEY)


def async_primary_only(connection: type[Any]) -> type[Any]:
    """Return a class of asyncio connections that disconnect from a Redis that refuses writes."""

    class AsyncPrimaryOnly(connection):  # type: ignore[misc]  # redis-py has no types for it
        async def read_response(self, *args: Any, **options: Any) -> Any:
            try:
                return _reject_refusals(await super().read_response(*args, **options))
            except ResponseError as error:
                if not _is_refusal(error):
                    raise
                await self.disconnect(nowait=True)
                raise NotPrimary(str(error)) from None

    return AsyncPrimaryOnly


def primary_only(connection: type[Any]) -> type[Any]:
    """Return a class of blocking connections that disconnect from a Redis that refuses writes, and retry once.

    The retry is safe, because a refused command has written nothing.
    """

    class PrimaryOnly(connection):  # type: ignore[misc]  # redis-py has no types for it
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            self.retry = Retry(NoBackoff(), 1, (NotPrimary, BusyLoadingError))

        def read_response(self, *args: Any, **options: Any) -> Any:
            try:
                return _reject_refusals(super().read_response(*args, **options))
            except ResponseError as error:
                if not _is_refusal(error):
                    raise
                self.disconnect()
                raise NotPrimary(str(error)) from None

    return PrimaryOnly


def _reject_refusals(response: Any) -> Any:
    """Return a response, or raise a refusal in it; the response of a transaction is a list of answers."""
    for each in response if isinstance(response, list) else ():
        if isinstance(each, ResponseError) and _is_refusal(each):
            raise each
    return response


def _is_refusal(error: ResponseError) -> bool:
    known = isinstance(error, ReadOnlyError | MasterDownError)
    return known or str(error).startswith(_REFUSALS) or _REFUSAL_IN_SCRIPT in str(error)
