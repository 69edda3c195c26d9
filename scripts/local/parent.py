"""End a process when the parent that started it is gone, however the parent ended.

The parent has the other end of our standard input, which the system closes when the parent ends.
"""

import os
import signal
import sys
import threading


def end_with_parent() -> None:
    """Send ourselves SIGTERM as soon as standard input ends."""
    threading.Thread(target=_exit_with_parent, name="parent", daemon=True).start()


def _exit_with_parent() -> None:
    while os.read(sys.stdin.fileno(), 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
