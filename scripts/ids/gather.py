"""Prepare a list of any length: remove duplicates, and write bad lines to a file."""

import contextlib
import hashlib
import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from scripts.console.formatting import format_count
from scripts.ids.candidate import Candidates, KnownCandidate, parse_candidate
from scripts.ids.errors import BadSource
from scripts.ids.facts import FactColumns
from scripts.ids.rejects import Rejects
from scripts.ids.scratch import scratch_folder
from scripts.ids.source import open_source
from scripts.ids.unique import NO_FACTS, Deduplicator, UniqueIds
from tasks.errors import BadEvalId
from tasks.model.evidence import EvaluationFacts
from worker.config.settings import Settings

MOST = 1_000_000
"""Largest ``limit`` and ``sample``: memory grows with them, by about 0.2 kB for each ID."""
_Entry = tuple[str, EvaluationFacts]


@dataclass(frozen=True)
class Gathered(contextlib.AbstractContextManager["Gathered"]):
    """The IDs of a source; it has a file open, so it must be closed.

    Attributes:
        ids: the selected IDs.
        bad: the number of lines without a valid ID.
        repeated: the number of duplicates.
        explained: the number of IDs with evidence for missing documents; None if there are no columns for it.
        bad_times: the number of lines with a time that cannot be read; their IDs are kept.
        rejects: the file with the bad lines, or None if every line is valid.
    """

    ids: UniqueIds
    bad: int
    repeated: int
    explained: int | None
    bad_times: int
    rejects: Path | None

    def __exit__(self, *_: object) -> None:
        self.ids.close()


def gather(
    source: str,
    *,
    column: str | None,
    limit: int | None,
    sample: int | None,
    rejects: Path,
    settings: Settings,
    facts: FactColumns | None = None,
) -> Gathered:
    """Return the IDs of a source, in order.

    Args:
        source: see ``open_source``.
        column: see ``open_source``.
        limit: read the first N IDs only, 1 to ``MOST``.
        sample: select a sample of N of these, 1 to ``MOST``; the same one for the same IDs in any order.
        rejects: file for the bad lines; an older one is replaced, or removed.
        facts: see ``open_source``.

    Raises:
        BadSource: the source cannot be read, or names no evaluation ID at all.
        ServiceUnavailable: S3, or this machine's disk, fails.
        SettingsError: there are no credentials for S3.
    """
    folder = scratch_folder(settings)
    _check_not_the_list(source, rejects)
    with (
        open_source(source, column=column, settings=settings, facts=facts) as candidates,
        Rejects(rejects) as refused,
    ):
        good = _Good(candidates, refused)
        ids = _unique(good if limit is None else _first(good, limit), folder)
        if not len(ids):
            ids.close()
            lines = format_count(refused.count, "line")
            why = f"; {refused.path} says what is wrong with its {lines}" if refused.path else ""
            raise BadSource(f"there is no evaluation ID in it{why}")
        repeated = ids.repeated
        if sample is not None and sample < len(ids):
            with ids:
                ids = _unique(_sampled(ids, sample), folder)
        explained = sum(bool(known.evidence) for known in ids.facts()) if good.has_columns else None
        return Gathered(ids, refused.count, repeated, explained, good.bad_times, refused.path)


def _check_not_the_list(source: str, rejects: Path) -> None:
    """Refuse a file for bad lines that is the list itself."""
    with contextlib.suppress(OSError, ValueError):  # one of them is not a file
        if rejects.samefile(source):
            raise BadSource("the file for the invalid lines would overwrite this list; rename the list", source)


class _Good:
    """The IDs of good lines, with their facts; bad lines are written to the rejects."""

    def __init__(self, candidates: Candidates, refused: Rejects) -> None:
        self._candidates, self._refused = candidates, refused
        self.has_columns = False
        self.bad_times = 0

    def __iter__(self) -> Iterator[_Entry]:
        for number, candidate in self._candidates:
            try:
                eval_id = parse_candidate(candidate)
            except BadEvalId as error:
                self._refused.add(number, error)
                continue
            if isinstance(candidate, KnownCandidate):
                self.has_columns = True
                self.bad_times += candidate.has_bad_time
                yield eval_id, candidate.facts
            else:
                yield eval_id, NO_FACTS


def _first(entries: Iterable[_Entry], limit: int) -> Iterator[_Entry]:
    seen: set[str] = set()
    for eval_id, facts in entries:
        yield eval_id, facts
        seen.add(eval_id)
        if len(seen) == limit:
            return


def _unique(entries: Iterable[_Entry], folder: Path | None) -> UniqueIds:
    with Deduplicator(folder) as sieve:
        for eval_id, facts in entries:
            sieve.add(eval_id, facts)
        return sieve.finish()


def _sampled(eval_ids: UniqueIds, count: int) -> Iterator[_Entry]:
    """Yield the IDs with the smallest hashes, in order: a random but reproducible choice."""
    largest = heapq.nsmallest(count, map(_hash, eval_ids))[-1]
    return (entry for entry in zip(eval_ids, eval_ids.facts(), strict=True) if _hash(entry[0]) <= largest)


def _hash(eval_id: str) -> bytes:
    return hashlib.sha256(eval_id.encode()).digest()
