"""Run a command that only reads, and show its progress on standard error."""

import asyncio
import time
from collections.abc import Coroutine
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Self

import click
import uvloop
from rich.console import Console

from scripts.console.exit_codes import INTERRUPTED
from scripts.console.formatting import format_number

_PLAIN_SECONDS = 5.0
_LIVE_SECONDS = 0.2


def run_read_only(work: Coroutine[Any, Any, int]) -> int:
    """Run work that changes nothing and may be stopped at any moment; return its exit code."""
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(work)
    except KeyboardInterrupt:
        click.echo("\nStopped before the end. Nothing was changed.", err=True)
        return INTERRUPTED


class ProgressLine(AbstractContextManager["ProgressLine"]):
    """Shows progress: one line that is updated on a terminal, a new line every few seconds elsewhere.

    Args:
        doing: name of the work, such as ``audit``.
        total: how many evaluations there are; None if that is not known.
    """

    def __init__(self, doing: str, total: int | None = None) -> None:
        self._doing, self._total = doing, total
        self._console = Console(stderr=True, soft_wrap=True, highlight=False)
        self._status = self._console.status(doing) if self._console.is_terminal else None
        self._began = time.monotonic()
        self._next = self._began + (_LIVE_SECONDS if self._status else _PLAIN_SECONDS)

    def __enter__(self) -> Self:
        if self._status:
            self._status.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._status:
            self._status.stop()

    def update(self, done: int, more: str = "") -> None:
        """Show how many evaluations are done, a few times per second at most."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + (_LIVE_SECONDS if self._status else _PLAIN_SECONDS)
        of = f" of {self._total:,}" if self._total else ""
        speed = done / max(now - self._began, 1e-9)
        noun = "evaluation" if (self._total or done) == 1 else "evaluations"
        line = f"{self._doing}: {done:,}{of} {noun}, {format_number(speed)} per second" + (f", {more}" if more else "")
        if self._status:
            self._status.update(line)
        else:
            self._console.print(line, markup=False)
