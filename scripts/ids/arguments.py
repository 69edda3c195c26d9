"""Read the IDs of a command line, given as arguments or in files, and name each bad one with its line."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

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
    """The IDs of the sources.

    Attributes:
        eval_ids: canonical IDs, each once, in the order they came.
        bad: one sentence for each text that is not an ID.
        repeated: the number of duplicates.
    """

    eval_ids: tuple[str, ...] = ()
    bad: tuple[str, ...] = ()
    repeated: int = 0


def read_ids(sources: Sequence[str], settings: Settings | None = None, more: Iterable[str] = ()) -> ParsedIds:
    """Return the IDs of the sources, and name bad ones on standard error.

    A source is an ID, or a source of ``open_source``.

    Args:
        sources: the sources.
        settings: see ``open_source``.
        more: further canonical IDs, such as those of a run.

    Raises:
        click.UsageError: a source is neither of these, or no source has an ID.
        BadSource: a source cannot be read.
        ServiceUnavailable: S3, or this machine's disk, fails.
        SettingsError: there are no credentials for S3.
    """
    eval_ids: dict[str, None] = {}
    bad: list[str] = []
    repeated = 0
    for where, candidate in iterate_candidates(sources, settings):
        try:
            eval_id = parse_candidate(candidate)
        except BadEvalId as error:
            bad.append(f"{where}: {error}")
        else:
            repeated += eval_id in eval_ids
            eval_ids[eval_id] = None
    eval_ids |= dict.fromkeys(more)
    ids = ParsedIds(tuple(eval_ids), tuple(bad), repeated)
    _report_bad(ids)
    if not eval_ids:
        raise click.UsageError("there is no evaluation ID in it")
    return ids


def name_sources(sources: Sequence[str]) -> str:
    """Return the names of files without their folders, for the list of a run."""
    if all(map(is_id, sources)):
        return "the command line"
    return ", ".join("standard input" if source == "-" else PurePosixPath(source).name for source in sources)


def _report_bad(ids: ParsedIds) -> None:
    """Name the first bad IDs, and count the others."""
    for sentence in ids.bad[:_NAMED]:
        click.echo(sentence, err=True)
    if len(ids.bad) > _NAMED:
        click.echo(f"... and {len(ids.bad) - _NAMED:,} more", err=True)
    if ids.bad:
        click.echo(f"{len(ids.bad):,} refused; the other {len(ids.eval_ids):,} continue", err=True)
    if ids.repeated:
        click.echo(f"{ids.repeated:,} given more than once; each counts once", err=True)


def iterate_candidates(sources: Sequence[str], settings: Settings | None) -> Iterator[tuple[str, Candidate]]:
    """Yield the candidates of the sources, each with a phrase for its place; raises as ``read_ids``."""
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
    """Return whether the source can be read, such as a file or a pipe, but not a folder."""
    # Path.exists raises OSError if the source is too long for a path.
    return os.path.exists(source) and not os.path.isdir(source)  # noqa: PTH110, PTH112  # see above
