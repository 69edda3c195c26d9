"""The keys that one simulator accepts. Each is an account with its own rate and faults."""

from collections.abc import Sequence
from dataclasses import replace

from aiohttp import web

from scripts.simulator.options import SimulatorOptions
from scripts.simulator.service import SimulatedAccount


class Keys:
    """One simulated account for each key.

    Args:
        options: initial options of each account.
        others: further accepted keys, besides the one of the options.
        one_rate: whether all of them share rate and quota.
    """

    def __init__(self, options: SimulatorOptions, others: Sequence[str] = (), *, one_rate: bool = False) -> None:
        self.first = SimulatedAccount(options)
        limiter = self.first.limiter if one_rate else None
        more = {key: SimulatedAccount(replace(options, api_key=key), limiter) for key in others}
        self._services = {options.api_key: self.first, **more}

    @property
    def accounts(self) -> tuple[SimulatedAccount, ...]:
        """The account of each key."""
        return tuple(self._services.values())

    def of(self, key: str | None) -> SimulatedAccount:
        """Return the account of a key, or of the first key if none is named.

        Raises:
            ValueError: the simulator does not accept the key.
        """
        if key is None:
            return self.first
        if key not in self._services:
            raise ValueError("there is no such key")
        return self._services[key]

    async def documents(self, request: web.Request) -> web.StreamResponse:
        """Answer ``GET /api/evaluation/{eval_id}/documents`` for the account of the request's key."""
        return await self._asked(request).documents(request)

    async def record(self, request: web.Request) -> web.StreamResponse:
        """Answer ``GET /api/evaluation/{eval_id}`` for the account of the request's key."""
        return await self._asked(request).record(request)

    def _asked(self, request: web.Request) -> SimulatedAccount:
        known = (service for service in self._services.values() if service.knows(request))
        return next(known, self.first)
