"""A process that another one has started ends when that one is gone, however it went.

The parent keeps the other end of our standard input; the system closes it with the parent's last breath.
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
