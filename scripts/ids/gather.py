"""A list of any length made ready: each ID once, the bad lines written down."""

import contextlib
import hashlib
import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from scripts.ids.candidate import Candidates, parse_candidate
from scripts.ids.errors import BadSource
from scripts.ids.rejects import Rejects
from scripts.ids.scratch import scratch_folder
from scripts.ids.source import open_source
from scripts.ids.unique import Deduplicator, UniqueIds
from tasks.errors import BadEvalId
from worker.config.settings import Settings

MOST = 1_000_000
"""Largest ``limit`` and ``sample``: memory grows with them, by some 0.2 kB each."""


@dataclass(frozen=True)
class Gathered(contextlib.AbstractContextManager["Gathered"]):
    """What a source held; it has a file open, so it must be closed.

    Attributes:
        ids: what is wanted of it.
        bad: lines that are no evaluation ID.
        repeated: lines that name an ID named before.
        rejects: the file with the bad lines, None where there are none.
    """

    ids: UniqueIds
    bad: int
    repeated: int
    rejects: Path | None

    def __exit__(self, *_: object) -> None:
        self.ids.close()


def gather(
    source: str, *, column: str | None, limit: int | None, sample: int | None, rejects: Path, settings: Settings
) -> Gathered:
    """Read a source and return the IDs it names, in its order.

    Args:
        source: see ``open_source``.
        column: see ``open_source``.
        limit: only so many, the first ones; what comes after them is not read. 1 to ``MOST``.
        sample: of these only so many, the same for the same IDs, wherever they stand. 1 to ``MOST``.
        rejects: file for the bad lines; what was there before is replaced, or removed.

    Raises:
        BadSource: the source cannot be read, or names no evaluation ID at all.
        ServiceUnavailable: S3, or this machine's disk, does not do what it is asked.
        SettingsError: there are no credentials for S3.
    """
    folder = scratch_folder(settings)
    _keep_apart(source, rejects)
    with open_source(source, column=column, settings=settings) as candidates, Rejects(rejects) as refused:
        eval_ids = _good(candidates, refused)
        ids = _unique(eval_ids if limit is None else _first(eval_ids, limit), folder)
        if not len(ids):
            ids.close()
            why = f"; what is wrong with its {refused.count} lines stands in {refused.path}" if refused.path else ""
            raise BadSource(f"there is no evaluation ID in it{why}")
        repeated = ids.repeated
        if sample is not None and sample < len(ids):
            with ids:
                ids = _unique(_sampled(ids, sample), folder)
        return Gathered(ids, refused.count, repeated, refused.path)


def _keep_apart(source: str, rejects: Path) -> None:
    """See that reading a list does not remove it."""
    with contextlib.suppress(OSError, ValueError):  # one of them is no file
        if rejects.samefile(source):
            raise BadSource("the bad lines of this list would be written over it; give it another name", source)


def _good(candidates: Candidates, refused: Rejects) -> Iterator[str]:
    for number, candidate in candidates:
        try:
            eval_id = parse_candidate(candidate)
        except BadEvalId as error:
            refused.add(number, error)
        else:
            yield eval_id


def _first(eval_ids: Iterator[str], limit: int) -> Iterator[str]:
    seen: set[str] = set()
    for eval_id in eval_ids:
        yield eval_id
        seen.add(eval_id)
        if len(seen) == limit:
            return


def _unique(eval_ids: Iterable[str], folder: Path | None) -> UniqueIds:
    with Deduplicator(folder) as sieve:
        for eval_id in eval_ids:
            sieve.add(eval_id)
        return sieve.finish()


def _sampled(eval_ids: UniqueIds, count: int) -> Iterator[str]:
    """Yield, in their order, those with the smallest hashes: a choice that is as good as chance and always the same."""
    largest = heapq.nsmallest(count, map(_hash, eval_ids))[-1]
    return (eval_id for eval_id in eval_ids if _hash(eval_id) <= largest)


def _hash(eval_id: str) -> bytes:
    return hashlib.sha256(eval_id.encode()).digest()
