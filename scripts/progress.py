"""Show how a run goes: a bar on a terminal, plain lines elsewhere; always on standard error."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from scripts.duration import duration
from tasks.census import Census, RunCounters
from tasks.hold import Hold

_PLAIN_SECONDS = 5.0
_BAR_AND_FIGURES = 64


@dataclass(frozen=True, slots=True)
class Seen:
    """One look at a run.

    Attributes:
        counters: of the run.
        census: of everything in the ledger.
        holds: what stands still.
        served: whether a worker serves the backfill.
        per_second: evaluations that ended lately, each second; 0 while that is not known.
    """

    counters: RunCounters
    census: Census
    holds: Sequence[Hold]
    served: bool = True
    per_second: float = 0.0

    @property
    def done(self) -> int:
        """Evaluations with an outcome."""
        return self.counters.total - self.counters.pending

    @property
    def _waits(self) -> bool:
        """Whether all that is left waits for another attempt."""
        return bool(self.census.parked) and not self.census.leased

    def sentence(self) -> str:
        """Return what the run waits for, and the counts, in a line."""
        parts = []
        if self.holds:
            parts += [f"{hold.what} is on hold ({hold.reason}), {until(hold)}" for hold in self.holds]
        elif self._waits and self.census.next_due is not None:
            why = f" ({self.census.next_cause})" if self.census.next_cause else ""
            parts.append(f"{self.census.parked} parked{why}, next attempt in {duration(self.census.next_due)}")
        elif not self.served and self.counters.pending:
            parts.append("no worker serves the backfill: start one with `docv-archive worker`")
        if self.done:
            parts.append(self.counters.sentence())
        if self.per_second and self.counters.pending and not self._waits:
            left = duration(self.counters.pending / self.per_second)
            parts.append(f"{self.per_second:.3g} a second, {left} left")
        return ", ".join(parts) or "waiting for the first answer"


def until(hold: Hold) -> str:
    """Return what ends a hold, and when, in words."""
    if hold.by_hand:
        return "until `docv-archive resume`"
    return f"{'next probe' if hold.probed else 'goes on'} in {duration(hold.left)}"


class Progress(Protocol):
    """Something that shows looks at a run."""

    def show(self, seen: Seen) -> None:
        """Show one look."""


class _PlainLines:
    def __init__(self, name: str) -> None:
        self._name, self._next = name, 0.0
        self._console = Console(stderr=True, soft_wrap=True, highlight=False)

    def show(self, seen: Seen) -> None:
        now = time.monotonic()
        if now >= self._next or not seen.counters.pending:
            self._next = now + _PLAIN_SECONDS
            self._console.print(f"{self._name}: {seen.done} of {seen.counters.total}: {seen.sentence()}", markup=False)


class _LiveBar:
    def __init__(self, bar: Bar, total: int) -> None:
        self._bar = bar
        self._task = bar.add_task("archiving", total=total, said="")

    def show(self, seen: Seen) -> None:
        # What is told may be long: it gives way, the bar and the figures do not.
        room = max(0, self._bar.console.width - _BAR_AND_FIGURES)
        said = seen.sentence()
        told = said if len(said) <= room else said[: room - 1] + "…"
        self._bar.update(self._task, completed=seen.done, total=seen.counters.total, said=told)


@contextmanager
def open_progress(name: str, total: int) -> Iterator[Progress]:
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
