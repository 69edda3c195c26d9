"""Run the loops of a process; a round that fails or hangs is logged, and the loop continues."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tasks.telemetry import log_events
from worker.runtime import cancel_requested
from worker.watchdog import Watchdog

ROUND_SECONDS = 40.0
"""Longest time for a round. The Redis client retries a call for a minute, the bucket's client for several."""
_SPARE_SECONDS = 15.0
_LONGEST_PAUSE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Loop:
    """A function that a process calls periodically.

    Attributes:
        name: the name in the log.
        seconds: pause between two rounds.
        run_round: runs one round; returns whether the next one follows without a pause.
        longest_pause: pause after many failed rounds in a row.
    """

    name: str
    seconds: float
    run_round: Callable[[], Awaitable[bool | None]]
    longest_pause: float = _LONGEST_PAUSE_SECONDS


async def run_loop(loop: Loop, watchdog: Watchdog | None = None, round_seconds: float = ROUND_SECONDS) -> None:
    """Run a loop until it is cancelled; no error in a round ends it, and each failure doubles the pause.

    Args:
        watchdog: detects a round that hangs and cannot be cancelled.
        round_seconds: longest time for a round.
    """
    pause = loop.seconds
    while not cancel_requested():
        if watchdog:
            watchdog.expect_round(loop.name, round_seconds + _SPARE_SECONDS)
        again = None
        try:
            async with asyncio.timeout(round_seconds):
                again = await loop.run_round()
        except (Exception, asyncio.CancelledError) as error:  # a library may raise its own cancellation
            if cancel_requested():
                raise
            log_events.loop_failed(loop.name, error)
            pause = max(loop.seconds, min(2 * pause, loop.longest_pause))
        else:
            pause = loop.seconds
        if watchdog:
            watchdog.expect_round(loop.name, pause + round_seconds + _SPARE_SECONDS)
        if not cancel_requested():
            await asyncio.sleep(0 if again else pause)
