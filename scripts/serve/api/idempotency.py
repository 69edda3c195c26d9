"""Process a repeated request once: its result is stored under its Idempotency-Key for a day.

Only counts and hashes are stored. The caller is a part of the key, so that two callers may use the same one.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aiohttp import web
from redis.asyncio import Redis

from scripts.serve.http.responses import HTTPError

HEADER = "Idempotency-Key"
_PREFIX = "docv:idempotency:"
_KEY = re.compile(r"[\x21-\x7e]{1,255}")
_DAY = 24 * 60 * 60
# Longer than a request may take, so that no other one begins meanwhile; and short, in case its process dies.
_UNDER_WAY_SECONDS = 90


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """A request that must be processed once.

    Attributes:
        key: caller and key, hashed.
        body: its body, hashed.
    """

    key: str
    body: str


def read_idempotency_key(request: web.Request, caller: str, body: bytes) -> IdempotencyKey | None:
    """Return the key of a request, or None if it has none.

    Raises:
        HTTPError: the header is not a valid key.
    """
    shown = request.headers.getall(HEADER, [])
    if not shown:
        return None
    if len(shown) > 1 or not _KEY.fullmatch(shown[0]):
        raise HTTPError(400, f"{HEADER} must have 1 to 255 visible ASCII characters and be sent only once")
    return IdempotencyKey(_hash(f"{caller} {shown[0]}".encode()), _hash(body))


class IdempotencyStore:
    """Stores the results of requests in Redis.

    Args:
        redis: the client, with ``decode_responses``.
    """

    def __init__(self, redis: "Redis") -> None:
        self._redis = redis

    async def begin(self, once: IdempotencyKey) -> dict[str, int] | None:
        """Begin a request; return its result if it was processed before.

        Raises:
            HTTPError: the request is under way, or the key belongs to another one.
        """
        mark = json.dumps({"body": once.body})
        if await self._redis.set(_PREFIX + once.key, mark, nx=True, ex=_UNDER_WAY_SECONDS):
            return None
        # A key that expired in between counts as under way; the next repetition begins.
        known = _parse(await self._redis.get(_PREFIX + once.key) or mark)
        if known is None:
            await self._redis.set(_PREFIX + once.key, mark, ex=_UNDER_WAY_SECONDS)
            return None
        if known["body"] != once.body:
            raise HTTPError(422, f"this {HEADER} belongs to a request with another body; use a new one")
        if "figures" not in known:
            raise HTTPError(
                409, f"a request with this {HEADER} is being processed; try again later", {"Retry-After": "1"}
            )
        return dict(known["figures"])

    async def complete(self, once: IdempotencyKey, counts: Mapping[str, int]) -> None:
        """Store the result for a day."""
        mark = json.dumps({"body": once.body, "figures": dict(counts)})
        await self._redis.set(_PREFIX + once.key, mark, ex=_DAY)

    async def abandon(self, once: IdempotencyKey) -> None:
        """Forget a request that failed, so that it can be repeated."""
        await self._redis.delete(_PREFIX + once.key)


def _parse(text: str | bytes) -> dict[str, Any] | None:
    """Return a stored result; None if it is damaged, so that the request is processed again."""
    try:
        known = json.loads(text)
        is_sound = isinstance(known["body"], str) and isinstance(known.get("figures", {}), dict)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return known if is_sound else None


def _hash(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()
