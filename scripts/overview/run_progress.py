"""Show how a run goes: a bar on a terminal, plain lines elsewhere; always on standard error."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from scripts.overview.run_snapshot import RunSnapshot

_PLAIN_SECONDS = 5.0
_BAR_AND_FIGURES = 64


class _PlainLines:
    def __init__(self, name: str) -> None:
        self._name, self._next = name, 0.0
        self._console = Console(stderr=True, soft_wrap=True, highlight=False)

    def update(self, seen: RunSnapshot) -> None:
        now = time.monotonic()
        if now >= self._next or not seen.counters.pending:
            self._next = now + _PLAIN_SECONDS
            self._console.print(f"{self._name}: {seen.done} of {seen.counters.total}: {seen.sentence()}", markup=False)


class _LiveBar:
    def __init__(self, bar: Bar, total: int) -> None:
        self._bar = bar
        self._task = bar.add_task("archiving", total=total, said="")

    def update(self, seen: RunSnapshot) -> None:
        # What is told may be long: it gives way, the bar and the figures do not.
        room = max(0, self._bar.console.width - _BAR_AND_FIGURES)
        said = seen.sentence()
        if len(said) > room:
            said = said[: room - 1] + "…"
        self._bar.update(self._task, completed=seen.done, total=seen.counters.total, said=said)


@contextmanager
def open_progress(name: str, total: int) -> Iterator[_PlainLines | _LiveBar]:
    """Yield what shows the progress of a run."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _PlainLines(name)
        return
    columns = (
        TextColumn("[bold]{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[said]}"),
    )
    with Bar(*columns, console=console, transient=True) as bar:
        yield _LiveBar(bar, total)
