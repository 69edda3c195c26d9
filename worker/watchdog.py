"""End a stalled process, so that its supervisor starts another.

Two kinds of stall have been seen. The event loop does not tick: something holds it. Or messages wait, there is room
for them, and none is taken: Celery believes that its places are all taken, which a failed acknowledgement does to it.
"""

import faulthandler
import os
import sys
import threading
import time
from collections.abc import Callable

EXIT_STALLED = 70
"""Exit code of a process that exits because it has stalled (EX_SOFTWARE of sysexits.h)."""
_LOOK_SECONDS = 1.0
_RECENT_SECONDS = 10.0


def exit_now(why: str) -> None:
    """End this process at once: nothing in it can be trusted to end it in order. Leases run out by themselves."""
    print(f"docv-archive: the worker leaves: {why}", file=sys.stderr, flush=True)  # noqa: T201  # the log may be stuck, too
    faulthandler.dump_traceback(all_threads=True)
    os._exit(EXIT_STALLED)


class Watchdog:
    """Watches one worker process from a thread of its own.

    Args:
        exit_process: what to do with a stalled process; called with the reason, once.
        stuck_seconds: longest time between two ticks of the loop.
        stalled_seconds: longest time for which messages may wait, with room for them, and none be taken.
        clock: seconds of a clock that never goes back.
    """

    def __init__(
        self,
        exit_process: Callable[[str], None] = exit_now,
        *,
        stuck_seconds: float = 30.0,
        stalled_seconds: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._exit = exit_process
        self._stuck_seconds, self._stalled_seconds = stuck_seconds, stalled_seconds
        self._clock = clock
        self._ticked = self._observed_at = self._looked = clock()
        self._waiting_since: float | None = None
        self._over = threading.Event()

    def start(self) -> None:
        """Begin to watch."""
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def stop(self) -> None:
        """Stop watching: the process is about to end."""
        self._over.set()

    def tick(self) -> None:
        """The loop is alive."""
        self._ticked = self._clock()

    def message_handled(self) -> None:
        """A message was taken."""
        self._waiting_since = None

    def queue_observed(self, *, waiting: bool) -> None:
        """Learn whether messages wait for this process although it has room for them."""
        now = self._clock()
        # Who could not look for a while, since Redis did not answer, begins anew.
        if not waiting or now - self._observed_at > _RECENT_SECONDS:
            self._waiting_since = None
        if waiting and self._waiting_since is None:
            self._waiting_since = now
        self._observed_at = now

    def problem(self) -> str | None:
        """Return why this process has stalled, or None."""
        now, since = self._clock(), self._waiting_since
        if now - self._looked > _RECENT_SECONDS:
            # The whole process stood still, and so did its loop.
            self._ticked = now
        self._looked = now
        if now - self._ticked > self._stuck_seconds:
            return f"its event loop has not moved for {now - self._ticked:.0f} s"
        if since is not None and now - self._observed_at < _RECENT_SECONDS and now - since > self._stalled_seconds:
            return f"messages have been waiting for {now - since:.0f} s, there is room for them, and none was taken"
        return None

    def _watch(self) -> None:
        while not self._over.wait(_LOOK_SECONDS):
            why = self.problem()
            if why:
                self._exit(why)
                return
