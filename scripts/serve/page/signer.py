"""Sign what a caller may do or see, with a key in Redis, so that all `serve` processes agree.

The key opens nothing by itself: whoever shows a signature has to log in as the one it was made for.
"""

import hashlib
import hmac
import secrets

from redis.asyncio import Redis

_KEY = "docv:page:key"
"""STRING: the key, made by whoever needs it first."""


class PageSigner:
    """Makes signatures and knows them again.

    Args:
        redis: the client, with ``decode_responses``.
    """

    def __init__(self, redis: "Redis") -> None:
        self._redis = redis

    async def sign(self, *parts: str) -> str:
        """Return the signature of some texts, in this order."""
        # No text holds the character that stands between them.
        return hmac.new(await self._key(), "\0".join(parts).encode(), hashlib.sha256).hexdigest()

    async def is_valid(self, signature: str, *parts: str) -> bool:
        """Return whether a signature is that of these texts."""
        return hmac.compare_digest(signature.encode(), (await self.sign(*parts)).encode())

    async def _key(self) -> bytes:
        """Return the key; asked for each time, since a Redis that forgot it would leave everybody with another one."""
        async with self._redis.pipeline(transaction=True) as pipe:
            pipe.set(_KEY, secrets.token_hex(32), nx=True)
            pipe.get(_KEY)
            _, key = await pipe.execute()
        return str(key).encode()
