"""One request that is sent twice is done once: what came of it is known by its Idempotency-Key for a day.

Kept are figures and hashes only. Keys of two callers do not meet: what a caller is known by is a part of the key.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from aiohttp import web
from redis.asyncio import Redis

from scripts.serve.http.responses import HTTPError

HEADER = "Idempotency-Key"
_PREFIX = "docv:idempotency:"
_KEY = re.compile(r"[\x21-\x7e]{1,255}")
_DAY = 24 * 60 * 60
# Longer than a request may take, so that nobody else can have begun when it ends; and short, in case its process dies.
_UNDER_WAY_SECONDS = 90


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """A request that is to be done once.

    Attributes:
        key: caller and key, hashed.
        body: its body, hashed.
    """

    key: str
    body: str


def read_idempotency_key(request: web.Request, caller: str, body: bytes) -> IdempotencyKey | None:
    """Return what a request is known by, or None where it shows no key.

    Raises:
        HTTPError: what it shows is no key.
    """
    shown = request.headers.getall(HEADER, [])
    if not shown:
        return None
    if len(shown) > 1 or not _KEY.fullmatch(shown[0]):
        raise HTTPError(400, f"{HEADER} has 1 to 255 visible ASCII characters, and stands there once")
    return IdempotencyKey(_hash(f"{caller} {shown[0]}".encode()), _hash(body))


class IdempotencyStore:
    """What came of requests, in Redis.

    Args:
        redis: the client, with ``decode_responses``.
    """

    def __init__(self, redis: "Redis") -> None:
        self._redis = redis

    async def begin(self, once: IdempotencyKey) -> dict[str, int] | None:
        """Begin a request; return the figures of what came of it where it was done before.

        Raises:
            HTTPError: it is under way, or its key belongs to another one.
        """
        mark = json.dumps({"body": once.body})
        if await self._redis.set(_PREFIX + once.key, mark, nx=True, ex=_UNDER_WAY_SECONDS):
            return None
        # What has run out in between counts as under way: whoever asks again begins.
        known = json.loads(await self._redis.get(_PREFIX + once.key) or mark)
        if known["body"] != once.body:
            raise HTTPError(422, f"this {HEADER} belongs to a request with another body; use a new one")
        if "figures" not in known:
            raise HTTPError(409, f"a request with this {HEADER} is under way; ask again", {"Retry-After": "1"})
        return dict(known["figures"])

    async def complete(self, once: IdempotencyKey, counts: Mapping[str, int]) -> None:
        """Remember for a day what came of it."""
        mark = json.dumps({"body": once.body, "figures": dict(counts)})
        await self._redis.set(_PREFIX + once.key, mark, ex=_DAY)

    async def abandon(self, once: IdempotencyKey) -> None:
        """It came to nothing; it may be sent again."""
        await self._redis.delete(_PREFIX + once.key)


def _hash(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()
