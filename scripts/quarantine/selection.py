"""Select bundles in quarantine by evaluation, run, cause and age."""

import contextlib
import difflib
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

import click

from scripts.archive_access.quarantine import QuarantinedBundle, find_quarantined, list_quarantine
from scripts.console.options import Function, account_option
from scripts.console.parameter_types import DurationType
from tasks.model.evaluation import parse_eval_id
from tasks.model.run_name import parse_run
from tasks.storage.bucket import Bucket
from tasks.storage.run_list import read_chunk, read_run_list

_ALIKE = 0.8


@dataclass(frozen=True, slots=True)
class QuarantineSelection:
    """The criteria that select bundles; without criteria, all bundles of evaluations that are not archived.

    Attributes:
        eval_ids: only bundles of these evaluations, even if they were archived since.
        cause: only bundles with this cause.
        run: only bundles of evaluations of this run.
        older_than: minimum number of seconds in quarantine.
        has_all: also bundles of evaluations that were archived since.
    """

    eval_ids: tuple[str, ...]
    cause: str | None
    run: str | None
    older_than: float
    has_all: bool

    def has(self, bundle: QuarantinedBundle, of_run: set[str], now: float) -> bool:
        """Return whether a bundle is selected.

        Args:
            of_run: evaluations in the list of the selected run.
            now: seconds since 1970.
        """
        return (
            (bundle.needs_work or self.has_all or bool(self.eval_ids))
            and (self.cause is None or self.cause in bundle.causes)
            and (self.run is None or self.run == bundle.run or bundle.eval_id in of_run)
            and now - bundle.quarantined_at >= self.older_than
        )


def make_selection(
    eval_ids: tuple[str, ...], cause: str | None, run_name: str | None, older_than: float, *, has_all: bool
) -> QuarantineSelection:
    """Return a selection from the options of the command line.

    Raises:
        InvalidInput: an ID or the name of the run is not valid.
    """
    run = None if run_name is None else parse_run(run_name)
    return QuarantineSelection(tuple(dict.fromkeys(map(parse_eval_id, eval_ids))), cause, run, older_than, has_all)


def selection_options(function: Function) -> Function:
    """Add the options that select bundles in quarantine."""
    options: tuple[Any, ...] = (
        click.argument("eval_ids", metavar="[ID]...", nargs=-1),
        click.option("--cause", help="Select bundles with this cause, such as no_end_record."),
        click.option("--run", "run_name", help="Select bundles of this run."),
        click.option(
            "--older-than",
            type=DurationType(),
            default="0s",
            help="Select bundles that have been in quarantine for at least this long, such as 7d.",
        ),
        click.option(
            "--all", "has_all", is_flag=True, help="Include bundles of evaluations that have since been archived."
        ),
        account_option(),
    )
    for option in reversed(options):
        function = option(function)
    return function


async def select_bundles(
    bucket: Bucket, environment: str, selection: QuarantineSelection
) -> AsyncGenerator[list[QuarantinedBundle], None]:
    """Yield the selected bundles in batches.

    Raises:
        IntegrityError: the list of the run is damaged.
        StorageError: the archive fails.
        click.BadParameter: the cause is very likely misspelled.
    """
    of_run = await _list_run(bucket, environment, selection.run) if selection.run else set()
    now, causes = time.time(), set[str]()
    async with contextlib.aclosing(list_quarantine(bucket, environment, selection.eval_ids or None)) as bundles:
        async for some in bundles:
            causes.update(cause for each in some for cause in each.causes)
            if selected := [each for each in some if selection.has(each, of_run, now)]:
                yield selected
    if selection.cause and selection.cause not in causes:
        _check_spelling(selection.cause, causes)


def _check_spelling(cause: str, causes: set[str]) -> None:
    """Refuse a cause that no bundle has, if its spelling is close to an existing one."""
    if near := difflib.get_close_matches(cause, sorted(causes), 1, _ALIKE):
        raise click.BadParameter(f"no bundle has the cause {cause!r}: did you mean {near[0]}?", param_hint="--cause")


async def _list_run(bucket: Bucket, environment: str, run: str) -> set[str]:
    """Return the evaluations of a run's list that have a bundle in quarantine; the list may have millions of others."""
    known = await read_run_list(bucket, environment, run)
    if known is None:
        return set()
    quarantined = await find_quarantined(bucket, environment)
    return {eval_id for piece in known.pieces for eval_id in await read_chunk(bucket, piece) if eval_id in quarantined}
