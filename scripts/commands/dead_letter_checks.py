"""Refuse filters of dead letters that can match nothing: unknown causes and runs."""

import difflib
from collections import Counter
from collections.abc import Iterator

import click
from redis.asyncio import Redis

from tasks.errors import ArchiveError
from tasks.ledger.entries import DAMAGED
from tasks.ledger.ledger import Ledger
from tasks.ledger.rejected_messages import RejectedMessages

_FAULT = "fault_"
_RUNS = 1000
_ALIKE = 0.8
_BAD_EVENT = "bad_event"


async def check_cause(redis: "Redis", cause: str | None) -> None:
    """Check that dead letters, rejected messages or damaged entries can have this cause.

    Raises:
        click.BadParameter: they cannot, and none in Redis has it; other versions may know other causes.
    """
    known = {DAMAGED, _BAD_EVENT, *(error.cause for error in _subclasses(ArchiveError) if isinstance(error.cause, str))}
    if cause is None or cause in known or cause.startswith(_FAULT):
        return
    there = {
        *await Ledger(redis).dead_letters.count_causes(),
        *[each.cause async for each in RejectedMessages(redis).iterate()],
    }
    if cause not in there:
        near = difflib.get_close_matches(cause, sorted(known | there), 2, _ALIKE)
        hint = f"did you mean {' or '.join(near)}?" if near else f"expected one of {', '.join(sorted(known | there))}"
        raise click.BadParameter(f"{cause!r} is not a known cause: {hint}", param_hint="--cause")


async def check_run(redis: "Redis", run: str | None) -> None:
    """Check that there is a run of this name.

    Raises:
        click.BadParameter: there is not.
    """
    ledger = Ledger(redis)
    if run is not None and await ledger.runs.get_age(run) is None:
        near = difflib.get_close_matches(run, await ledger.runs.list_newest(_RUNS), 3)
        hint = f"did you mean {' or '.join(near)}?" if near else "`docv-archive status` lists the newest runs"
        raise click.BadParameter(f"there is no run {run}: {hint}", param_hint="--run")


def describe_causes(counts: Counter[str]) -> str:
    """Return how many have each cause, the most frequent first, such as ``2 forbidden, 1 service_failed``."""
    return ", ".join(f"{count:,} {cause}" for cause, count in counts.most_common())


def _subclasses(error: type[ArchiveError]) -> Iterator[type[ArchiveError]]:
    for each in error.__subclasses__():
        yield each
        yield from _subclasses(each)
