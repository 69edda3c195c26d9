"""Exit a stalled process, so that its supervisor starts another.

Two kinds of stall have been seen. The event loop does not tick, because something blocks it. Or messages wait and the
worker has free slots, but it takes none: after a failed acknowledgement, Celery believes that all slots are in use.
A third kind is detected as a precaution: a loop task has ended, or it hangs and cannot be cancelled.
"""

import faulthandler
import os
import sys
import threading
import time
from collections.abc import Callable

EXIT_STALLED = 70
"""Exit code of a process that exits because it has stalled (EX_SOFTWARE of sysexits.h)."""
_CHECK_SECONDS = 1.0
_RECENT_SECONDS = 10.0


def exit_now(why: str) -> None:
    """Exit at once, because a stalled process may never finish a normal shutdown. Its leases will run out."""
    print(f"docv-archive: the worker exits: {why}", file=sys.stderr, flush=True)  # noqa: T201  # the log may be stuck, too
    faulthandler.dump_traceback(all_threads=True)
    os._exit(EXIT_STALLED)


class Watchdog:
    """Watches one worker process from its own thread.

    Args:
        exit_process: called once with the reason if the process has stalled.
        stuck_seconds: longest time between two ticks of the event loop.
        stalled_seconds: longest time that messages may wait while the worker has free slots and takes none.
        clock: returns the seconds of a monotonic clock.
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
        self._ticked = self._observed_at = self._checked_at = clock()
        self._waiting_since: float | None = None
        self._rounds_due: dict[str, float] = {}
        self._stopped = threading.Event()

    def start(self) -> None:
        """Start watching."""
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def stop(self) -> None:
        """Stop watching, because the process is about to end."""
        self._stopped.set()

    def tick(self) -> None:
        """Record that the event loop is alive."""
        self._ticked = self._clock()

    def expect_round(self, loop: str, seconds: float) -> None:
        """Expect the next call for this loop within some seconds."""
        self._rounds_due[loop] = self._clock() + seconds

    def record_message(self) -> None:
        """Record that a message was taken."""
        self._waiting_since = None

    def observe_queue(self, *, waiting: bool) -> None:
        """Record whether messages wait while this process has free slots."""
        now = self._clock()
        # If Redis has not answered for a while, it is unknown since when messages wait.
        if not waiting or now - self._observed_at > _RECENT_SECONDS:
            self._waiting_since = None
        if waiting and self._waiting_since is None:
            self._waiting_since = now
        self._observed_at = now

    def problem(self) -> str | None:
        """Return why this process has stalled, or None."""
        now, since = self._clock(), self._waiting_since
        if now - self._checked_at > _RECENT_SECONDS:
            # The whole process was suspended, so its loops are not to blame.
            self._ticked = now
            self._rounds_due = {loop: due + now - self._checked_at for loop, due in self._rounds_due.items()}
        self._checked_at = now
        if now - self._ticked > self._stuck_seconds:
            return f"its event loop has not moved for {now - self._ticked:.0f} s"
        late = next((loop for loop, due in tuple(self._rounds_due.items()) if now > due), None)
        if late:
            return f"its loop {late} has ended or hangs"
        if since is not None and now - self._observed_at < _RECENT_SECONDS and now - since > self._stalled_seconds:
            return f"messages have been waiting for {now - since:.0f} s although the worker has free slots"
        return None

    def _watch(self) -> None:
        while not self._stopped.wait(_CHECK_SECONDS):
            why = self.problem()
            if why:
                self._exit(why)
                return
