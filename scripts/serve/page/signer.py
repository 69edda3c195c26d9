"""Sign forms and links with a key in Redis, so that all `serve` processes accept them.

A signature does not replace a login. It is valid only together with the login of the caller that it was made for.
"""

import hashlib
import hmac
import secrets

from redis.asyncio import Redis

_KEY = "docv:page:key"
"""STRING: the key, made by the first process that needs it."""


class PageSigner:
    """Makes and checks signatures.

    Args:
        redis: the client, with ``decode_responses``.
    """

    def __init__(self, redis: "Redis") -> None:
        self._redis = redis

    async def sign(self, *parts: str) -> str:
        """Return the signature of some texts, in this order."""
        # No part contains the separator.
        return hmac.new(await self._key(), "\0".join(parts).encode(), hashlib.sha256).hexdigest()

    async def is_valid(self, signature: str, *parts: str) -> bool:
        """Return whether a signature is that of these texts."""
        return hmac.compare_digest(signature.encode(), (await self.sign(*parts)).encode())

    async def _key(self) -> bytes:
        """Return the key; it is read each time, because Redis may have lost it and another process made a new one."""
        async with self._redis.pipeline(transaction=True) as pipe:
            pipe.set(_KEY, secrets.token_hex(32), nx=True)
            pipe.get(_KEY)
            _, key = await pipe.execute()
        return str(key).encode()
