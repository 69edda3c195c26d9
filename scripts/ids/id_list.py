"""Read the IDs of lists of any length without duplicates; bad lines are printed, not written to a file."""

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import click

from scripts.ids.arguments import iterate_candidates
from scripts.ids.candidate import Candidate, parse_candidate
from scripts.ids.errors import BadSource
from scripts.ids.run_ids import read_run_ids
from scripts.ids.scratch import scratch_folder
from scripts.ids.source import open_source
from scripts.ids.unique import Deduplicator, UniqueIds
from tasks.errors import BadEvalId
from worker.config.settings import Settings

_NAMED = 20


@dataclass(frozen=True)
class IdList(AbstractContextManager["IdList"]):
    """The IDs of a list; it may have a file open, so it must be closed.

    Attributes:
        ids: without duplicates, in order.
        bad: the number of lines without a valid ID.
    """

    ids: UniqueIds
    bad: int

    def __exit__(self, *_: object) -> None:
        self.ids.close()


def read_id_list(source: str, column: str | None, settings: Settings) -> IdList:
    """Return the IDs of a list of any length, and name bad lines on standard error.

    Args:
        source: see ``open_source``.
        column: see ``open_source``.

    Raises:
        BadSource: it cannot be read, or names no evaluation ID at all.
        ServiceUnavailable: S3, or this machine's disk, fails.
        SettingsError: there are no credentials for S3.
    """
    with (
        Deduplicator(scratch_folder(settings)) as sieve,
        open_source(source, column=column, settings=settings) as candidates,
    ):
        bad = _add_all(sieve, ((f"line {number}", candidate) for number, candidate in candidates))
        return _finish(sieve, bad, source)


def read_selected_ids(sources: Sequence[str], run: str | None, settings: Settings) -> IdList:
    """Return the IDs of a command line: of its arguments, its files and the list of a run, in bounded memory.

    Args:
        sources: see ``scripts.ids.arguments.read_ids``, which keeps them in memory.
        run: name of the run; None for no run.

    Raises:
        click.UsageError: nothing is given, or a source is neither a file nor an ID.
        BadSource: a source cannot be read, the run has no list, or there is no evaluation ID at all.
        ServiceUnavailable: S3, the archive, or this machine's disk, fails.
        SettingsError: there are no credentials for S3.
    """
    if not sources and run is None:
        raise click.UsageError("give evaluation IDs, files with IDs, or --run")
    with Deduplicator(scratch_folder(settings)) as sieve:
        bad = _add_all(sieve, iterate_candidates(sources, settings))
        if run is not None:
            read_run_ids(run, settings, sieve.add)
        return _finish(sieve, bad)


def _add_all(sieve: Deduplicator, candidates: Iterable[tuple[str, Candidate]]) -> int:
    """Add the IDs of candidates, and print the first bad ones, each with its place; return the number of bad ones."""
    bad = 0
    for where, candidate in candidates:
        try:
            sieve.add(parse_candidate(candidate))
        except BadEvalId as error:
            bad += 1
            if bad <= _NAMED:
                click.echo(f"{where}: {error}", err=True)
    return bad


def _finish(sieve: Deduplicator, bad: int, source: str = "") -> IdList:
    ids = sieve.finish()
    if not len(ids):
        ids.close()
        raise BadSource("there is no evaluation ID in it", source)
    if bad:
        click.echo(f"invalid lines, without an evaluation ID: {bad}", err=True)
    if ids.repeated:
        click.echo(f"lines that repeat an evaluation: {ids.repeated}; each is read once", err=True)
    return IdList(ids, bad)
