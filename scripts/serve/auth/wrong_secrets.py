"""Limit wrong secrets: guessing is answered with 429 beyond ten per second, and a valid secret never is."""

import time
from collections.abc import Callable

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from scripts.serve.http.responses import HTTPError
from scripts.serve.metrics import HttpMetrics

_LOGIN_NEEDED = web.HTTPUnauthorized.status_code
_TOO_MANY = web.HTTPTooManyRequests.status_code


class WrongSecretLimiter:
    """A token bucket for all callers of this process: an attacker may use many addresses.

    Args:
        per_second: wrong secrets that are answered with 401 in a second.
        clock: returns the seconds of a monotonic clock.
    """

    def __init__(self, per_second: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_second, self._clock = per_second, clock
        self._left, self._updated = per_second, clock()

    def admit(self) -> bool:
        """Count a wrong secret; return False if there were too many."""
        now = self._clock()
        self._left = min(self._per_second, self._left + (now - self._updated) * self._per_second)
        self._updated = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


def limit_wrong_secrets(limiter: WrongSecretLimiter, metrics: HttpMetrics) -> Middleware:
    """Return the middleware that counts wrong secrets; requests without any secret are not limited."""

    @web.middleware
    async def limit(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except HTTPError as error:
            if error.status != _LOGIN_NEEDED or "Authorization" not in request.headers:
                raise
            is_admitted = limiter.admit()
            metrics.count_wrong_secret(_LOGIN_NEEDED if is_admitted else _TOO_MANY)
            if is_admitted:
                raise
            raise HTTPError(_TOO_MANY, "too many requests with a wrong secret", {"Retry-After": "1"}) from None

    return limit
