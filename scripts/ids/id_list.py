"""Read the IDs of a list without duplicates, for commands that only read: bad lines are named, not written."""

from contextlib import AbstractContextManager
from dataclasses import dataclass

import click

from scripts.ids.candidate import parse_candidate
from scripts.ids.errors import BadSource
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
        ServiceUnavailable: S3, or this machine's disk, does not do what it is asked.
        SettingsError: there are no credentials for S3.
    """
    bad = 0
    with (
        Deduplicator(scratch_folder(settings)) as sieve,
        open_source(source, column=column, settings=settings) as candidates,
    ):
        for number, candidate in candidates:
            try:
                sieve.add(parse_candidate(candidate))
            except BadEvalId as error:
                bad += 1
                if bad <= _NAMED:
                    click.echo(f"line {number}: {error}", err=True)
        ids = sieve.finish()
    if not len(ids):
        ids.close()
        raise BadSource("there is no evaluation ID in it", source)
    if bad:
        click.echo(f"invalid lines, without an evaluation ID: {bad}", err=True)
    if ids.repeated:
        click.echo(f"lines that repeat an evaluation: {ids.repeated}; each is read once", err=True)
    return IdList(ids, bad)
