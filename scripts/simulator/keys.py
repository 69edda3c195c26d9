"""The keys that one simulator accepts: each is an account of its own, with its own rate and faults."""

from collections.abc import Sequence
from dataclasses import replace

from aiohttp import web

from scripts.simulator.options import SimulatorOptions
from scripts.simulator.service import SimulatedAccount


class Keys:
    """A service for each key.

    Args:
        options: how each behaves at first.
        others: further keys it accepts, beside the one of the options.
        one_rate: whether all of them share rate and quota.
    """

    def __init__(self, options: SimulatorOptions, others: Sequence[str] = (), *, one_rate: bool = False) -> None:
        self.first = SimulatedAccount(options)
        limiter = self.first.limiter if one_rate else None
        more = {key: SimulatedAccount(replace(options, api_key=key), limiter) for key in others}
        self._services = {options.api_key: self.first, **more}

    @property
    def accounts(self) -> tuple[SimulatedAccount, ...]:
        """The service of each key."""
        return tuple(self._services.values())

    def of(self, key: str | None) -> SimulatedAccount:
        """Return the service of a key; of the first where none is named.

        Raises:
            ValueError: it is none of these keys.
        """
        if key is None:
            return self.first
        if key not in self._services:
            raise ValueError("there is no such key")
        return self._services[key]

    async def documents(self, request: web.Request) -> web.StreamResponse:
        """Answer ``GET /api/evaluation/{eval_id}/documents`` as the key of the request has it."""
        known = (service for service in self._services.values() if service.knows(request))
        return await next(known, self.first).documents(request)
