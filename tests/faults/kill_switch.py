"""Kill a simulated process at one of its calls to the archive."""

import asyncio
from dataclasses import dataclass
from typing import Any

from tests.scripts.erase.test_erasure import SimulatedCrash

_STEPS = frozenset({"create", "replace", "items", "remove", "tidy"})
"""Calls at which a process is killed."""


@dataclass
class KillSwitch:
    """Ends the process at one of its next steps.

    Attributes:
        steps_left: how many steps it has left; None for all.
        is_before: whether the last step is not carried out.
    """

    steps_left: int | None = None
    is_before: bool = False

    def wrap(self, target: Any) -> Any:
        """Return an object whose steps are counted."""
        return _Killable(target, self)

    def has_ended(self) -> bool:
        if self.steps_left is not None:
            self.steps_left -= 1
        return self.steps_left is not None and self.steps_left < 0


class _Killable:
    def __init__(self, target: Any, switch: KillSwitch) -> None:
        self._target, self._switch = target, switch

    def __getattr__(self, name: str) -> Any:
        method, switch = getattr(self._target, name), self._switch
        if name not in _STEPS:
            return method

        async def later(*arguments: Any, **named: Any) -> Any:
            is_last = switch.has_ended()
            if not (is_last and switch.is_before):
                result = await method(*arguments, **named)
            if is_last:
                raise SimulatedCrash
            return result

        def now(*arguments: Any, **named: Any) -> Any:
            is_last = switch.has_ended()
            if not (is_last and switch.is_before):
                result = method(*arguments, **named)
            if is_last:
                raise SimulatedCrash
            return result

        return later if asyncio.iscoroutinefunction(method) else now
