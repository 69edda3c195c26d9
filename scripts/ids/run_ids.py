"""Read the IDs of a run from its list in the archive."""

import asyncio
from collections.abc import Callable, Sequence

import click

from scripts.archive_access.open_bucket import open_read_only_bucket
from scripts.ids.arguments import ParsedIds, read_ids
from scripts.ids.errors import BadSource
from tasks.errors import IntegrityError
from tasks.model.run_name import parse_run
from tasks.storage.run_list import read_chunk, read_run_list
from worker.config.settings import Settings

run_option = click.option("--run", metavar="RUN", help="Also take the evaluations in the list of this run.")


def read_run_ids(run: str, settings: Settings, add: Callable[[str], None]) -> None:
    """Call ``add`` with each ID in the list of a run, in its environment of the settings.

    Raises:
        BadRunName: the name is not valid.
        BadSource: the archive has no list of the run, or the list is damaged.
        ServiceUnavailable: the archive does not answer.
    """
    asyncio.run(_read(parse_run(run), settings, add))


def read_ids_with_run(sources: Sequence[str], run: str | None, settings: Settings) -> ParsedIds:
    """Return the IDs of the sources, and those in the list of a run; raises as ``read_ids`` and ``read_run_ids``."""
    of_run: list[str] = []
    if run is not None:
        read_run_ids(run, settings, of_run.append)
    return read_ids(sources, settings, of_run)


async def _read(run: str, settings: Settings, add: Callable[[str], None]) -> None:
    async with open_read_only_bucket(settings, may_be_new=True) as bucket:
        try:
            known = await read_run_list(bucket, settings.environment, run)
            if known is None:
                raise BadSource(f"the archive has no list of run {run} in {settings.environment}")
            for piece in known.pieces:
                for eval_id in await read_chunk(bucket, piece):
                    add(eval_id)
        except IntegrityError as error:
            raise BadSource(str(error)) from None
