"""The few IDs that a command line names, itself or by files; every bad one is named with its line."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import click

from scripts.ids.candidate import Candidate, is_id, parse_candidate
from scripts.ids.errors import named
from scripts.ids.s3 import is_s3
from scripts.ids.source import open_source
from tasks.errors import BadEvalId
from tasks.model.evaluation import printable_id
from worker.config.settings import Settings

_NAMED = 20


@dataclass(frozen=True, slots=True)
class ParsedIds:
    """What the sources held.

    Attributes:
        eval_ids: canonical IDs, each once, in the order they came.
        bad: one sentence for each that is none.
        repeated: how many came more than once.
    """

    eval_ids: tuple[str, ...]
    bad: tuple[str, ...]
    repeated: int


def read_ids(sources: Sequence[str], settings: Settings | None = None) -> ParsedIds:
    """Return the IDs that the sources name, and tell which are bad on standard error.

    A source is an ID, or whatever ``open_source`` takes.

    Raises:
        click.UsageError: a source is neither, or no source has an ID.
        BadSource: a source cannot be read.
        ServiceUnavailable: S3, or this machine's disk, does not do what it is asked.
        SettingsError: there are no credentials for S3.
    """
    eval_ids: dict[str, None] = {}
    bad: list[str] = []
    repeated = 0
    for where, candidate in _candidates(sources, settings):
        try:
            eval_id = parse_candidate(candidate)
        except BadEvalId as error:
            bad.append(f"{where}: {error}")
        else:
            repeated += eval_id in eval_ids
            eval_ids[eval_id] = None
    ids = ParsedIds(tuple(eval_ids), tuple(bad), repeated)
    _report_bad(ids)
    if not eval_ids:
        raise click.UsageError("there is no evaluation ID in it")
    return ids


def _report_bad(ids: ParsedIds) -> None:
    """Name the bad IDs, the first ones each, the others as a count."""
    for sentence in ids.bad[:_NAMED]:
        click.echo(sentence, err=True)
    if len(ids.bad) > _NAMED:
        click.echo(f"... and {len(ids.bad) - _NAMED} more", err=True)
    if ids.bad:
        click.echo(f"{len(ids.bad)} refused; the other {len(ids.eval_ids)} go on", err=True)
    if ids.repeated:
        click.echo(f"{ids.repeated} named more than once; each counts once", err=True)


def _candidates(sources: Sequence[str], settings: Settings | None) -> Iterator[tuple[str, Candidate]]:
    for source in sources:
        if source == "-" or is_s3(source) or _is_there(source):
            with open_source(source, column=None, settings=settings) as candidates:
                for number, candidate in candidates:
                    yield f"{named(source)}, line {number}", candidate
        elif len(sources) == 1 and not is_id(source):
            raise click.UsageError(f"{printable_id(source)!r} is neither a file nor an evaluation ID")
        else:
            yield "argument", source


def _is_there(source: str) -> bool:
    """Whether it is something to read from: a file, a pipe, but no folder."""
    # Path.exists raises OSError if the source is too long for a path.
    return os.path.exists(source) and not os.path.isdir(source)  # noqa: PTH110, PTH112  # see above
