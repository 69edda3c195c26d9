"""Handle Ctrl-C and SIGTERM: clean up, say that nothing is lost, and return the exit code for that."""

import signal
from collections.abc import Callable
from types import FrameType

import click

from scripts.console.exit_codes import INTERRUPTED


def interruptible(work: Callable[[], int]) -> int:
    """Run work that Ctrl-C or SIGTERM may end at any moment; return its exit code, or the one for interrupted.

    SIGTERM is treated as Ctrl-C. Context managers of the work are closed.
    """

    def interrupt(_number: int, frame: FrameType | None) -> None:
        # asyncio's own handler cancels the task. An exception raised here, within a task, would be logged.
        handler = signal.getsignal(signal.SIGINT)
        if not callable(handler):
            raise KeyboardInterrupt
        handler(signal.SIGINT, frame)

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        return work()
    except KeyboardInterrupt:
        click.echo("\nStopped. No evaluation is lost: run the same command to continue.", err=True)
        return INTERRUPTED
    finally:
        signal.signal(signal.SIGTERM, before)
