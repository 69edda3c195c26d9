"""Ctrl-C and SIGTERM: clean up, say that nothing is lost, and end with the code that says so."""

import signal
from collections.abc import Callable

import click

from scripts.console.exit_codes import INTERRUPTED


def interruptible(work: Callable[[], int]) -> int:
    """Do work that Ctrl-C or SIGTERM may end at any moment; return its exit code, or the one for interrupted.

    A supervisor's SIGTERM means the same as a person's Ctrl-C. What is open in the work gets closed.
    """

    def interrupt(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        return work()
    except KeyboardInterrupt:
        click.echo("\nStopped. Nothing is lost: the same command goes on where this one was.", err=True)
        return INTERRUPTED
    finally:
        signal.signal(signal.SIGTERM, before)
