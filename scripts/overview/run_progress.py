"""Show the progress of a run on standard error: a bar on a terminal, plain lines elsewhere."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from scripts.overview.run_snapshot import RunSnapshot

_PLAIN_SECONDS, _IDLE_SECONDS = 5.0, 60.0
_BAR_AND_FIGURES = 64


class _PlainLines:
    def __init__(self, name: str) -> None:
        self._name, self._done, self._printed_at = name, -1, 0.0
        self._console = Console(stderr=True, soft_wrap=True, highlight=False)

    def update(self, snapshot: RunSnapshot) -> None:
        now = time.monotonic()
        wait = _IDLE_SECONDS if snapshot.done == self._done else _PLAIN_SECONDS
        if self._done < 0 or now >= self._printed_at + wait or not snapshot.counters.pending:
            self._done, self._printed_at = snapshot.done, now
            position = f"{snapshot.done} of {snapshot.counters.total}"
            self._console.print(f"{self._name}: {position}: {snapshot.sentence()}", markup=False)


class _LiveBar:
    def __init__(self, bar: Bar, total: int) -> None:
        self._bar = bar
        self._task = bar.add_task("archiving", total=total, sentence="")

    def update(self, snapshot: RunSnapshot) -> None:
        # The sentence may be long. It is cut, so that the bar and the numbers fit.
        room = max(0, self._bar.console.width - _BAR_AND_FIGURES)
        sentence = snapshot.sentence()
        if len(sentence) > room:
            sentence = sentence[: room - 1] + "…"
        self._bar.update(self._task, completed=snapshot.done, total=snapshot.counters.total, sentence=sentence)


@contextmanager
def open_progress(name: str, total: int) -> Iterator[_PlainLines | _LiveBar]:
    """Yield the object that shows the progress of a run."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _PlainLines(name)
        return
    columns = (
        TextColumn("[bold]{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[sentence]}"),
    )
    with Bar(*columns, console=console, transient=True) as bar:
        yield _LiveBar(bar, total)
