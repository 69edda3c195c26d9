"""The list of a run: its IDs, each once, in the archive. From there workers feed the ledger, and reports are made.

Redis stays small whatever a backfill names, and a run can be told of for as long as the archive is there.

    runs/{environment}/{run}/{sha256}.txt.gz     some of its IDs, one a line, each with what is known of it
    runs/{environment}/{run}/run.json            what the run is, and its pieces in order; written last
"""

import gzip
import hashlib
import itertools
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Literal

from pydantic import Field, ValidationError

from tasks.errors import BadEvalId, IntegrityError, ManifestChanged, RunCancelled, RunTaken
from tasks.model.account import DEFAULT_ACCOUNT
from tasks.model.evaluation import ENVIRONMENTS, parse_eval_id
from tasks.model.evidence import EvaluationFacts
from tasks.model.outcome import Evidence, ManifestOutcome
from tasks.storage.bucket import Bucket, ObjectAttributes, WriteUnconfirmed, put
from tasks.storage.manifest import SHA256, ArchiveRecord, archiver, format_utc, utc_now

CHUNK_SIZE = 50_000
"""IDs in one piece."""
_LINE = 256
"""Most bytes of a line."""
_EVENT_AT = "event_at:"
_EVIDENCE = frozenset(map(str, Evidence))
_UPDATE_ATTEMPTS = 5
_GZIP = 31  # zlib's word for "with gzip's header"


def _is_none(value: object) -> bool:
    return value is None


class Chunk(ArchiveRecord):
    """Some of the IDs."""

    key: str
    ids: int = Field(ge=1, le=CHUNK_SIZE)
    sha256: str = Field(pattern=SHA256, description="Hash of the object's bytes.")


class RunSource(ArchiveRecord):
    """What a run was made from."""

    name: str = Field(description="Name of the file, without its folder.")
    fingerprint: str = Field(pattern=SHA256, description="Hash of its IDs, each once, in order.")
    facts: str | None = Field(
        default=None,
        pattern=SHA256,
        exclude_if=lambda value: value is None,
        description="Hash of the lines of all its pieces; absent if they hold nothing but IDs.",
    )
    ids: int = Field(ge=1, description="How many those are.")
    repeated: int = Field(ge=0, description="How often one came again.")
    bad: int = Field(ge=0, description="Lines that name no evaluation.")


class RunList(ArchiveRecord):
    """What a run is."""

    schema_: Literal[1] = Field(alias="schema", description="Version of this format.")
    run: str
    environment: str
    account: str
    refresh: bool = Field(description="Whether RiskOS is asked although there is a manifest.")
    even_if_erased: bool = Field(default=False, description="Whether what was erased is archived again.")
    refresh_outcomes: tuple[ManifestOutcome, ...] = Field(
        default=(), description="Outcomes of manifests for which RiskOS is asked again."
    )
    source: RunSource
    pieces: tuple[Chunk, ...]
    begun_at: str
    archiver: str
    cancelled_at: str | None = Field(default=None, exclude_if=_is_none, description="When it was cancelled, if so.")
    cancelled_by: str | None = Field(default=None, exclude_if=_is_none, description="Who cancelled it.")
    position: int | None = Field(
        default=None, exclude_if=_is_none, description="How many of its IDs had been queued when it was cancelled."
    )

    @property
    def fingerprint(self) -> str:
        """What the ledger knows the list by: the same IDs with another account or other facts are another list."""
        account = "" if self.account == DEFAULT_ACCOUNT else self.account
        return ":".join(filter(None, (self.source.fingerprint, account, self.source.facts)))

    def with_cancellation(self, at: str | None, by: str | None, position: int | None) -> "RunList":
        """Return the list with what it says of a cancellation."""
        return self.model_copy(update={"cancelled_at": at, "cancelled_by": by, "position": position})

    def chunk_at(self, position: int) -> tuple[Chunk, int]:
        """Return the piece that holds the ID at a position, and how many IDs come before that piece.

        Raises:
            IndexError: the list is not that long.
        """
        before = 0
        for piece in self.pieces:
            if position < before + piece.ids:
                return piece, before
            before += piece.ids
        raise IndexError(position)


def hash_lines(eval_ids: Iterable[str], facts: Iterable[EvaluationFacts]) -> str:
    """Return the SHA-256 of the lines of a list with facts."""
    digest = hashlib.sha256()
    for line in map(_format_line, eval_ids, facts):
        digest.update(f"{line}\n".encode())
    return digest.hexdigest()


async def store_run_list(  # noqa: PLR0913  # the facts of a list are keyword-only, each with its name
    bucket: Bucket,
    eval_ids: Iterable[str],
    *,
    run: str,
    environment: str,
    account: str,
    refresh: bool,
    source: RunSource,
    even_if_erased: bool = False,
    refresh_outcomes: tuple[ManifestOutcome, ...] = (),
    again: bool = False,
    facts: Iterable[EvaluationFacts] | None = None,
) -> RunList:
    """Put the list of a run into the archive, or find the same one there; return it.

    Args:
        again: if the run was cancelled, begin it again.
        facts: what is known of each of the IDs, in their order; None if nothing is.

    Raises:
        RunTaken: the name means another list.
        RunCancelled: the run was cancelled, and is not to begin again.
        StorageError: it may not be there.
    """
    known = await read_run_list(bucket, environment, run)
    if known is None:
        rest, pieces = iter(eval_ids) if facts is None else map(_format_line, eval_ids, facts), []
        while some := tuple(itertools.islice(rest, CHUNK_SIZE)):
            pieces.append(await _store_chunk(bucket, environment, run, some))
        made = RunList(
            schema=1,
            run=run,
            environment=environment,
            account=account,
            refresh=refresh,
            even_if_erased=even_if_erased,
            refresh_outcomes=refresh_outcomes,
            source=source,
            pieces=tuple(pieces),
            begun_at=utc_now(),
            archiver=archiver(),
        )
        known = await _store_list(bucket, made)
    meant = (source.fingerprint, source.facts, account, refresh, even_if_erased, refresh_outcomes)
    found = (known.source.fingerprint, known.source.facts, known.account)
    if (*found, known.refresh, known.even_if_erased, known.refresh_outcomes) != meant:
        raise RunTaken(run, known.begun_at)
    if known.cancelled_at is None:
        return known
    if not again:
        raise RunCancelled(run)
    return await _update_list(bucket, known, lambda each: each.with_cancellation(None, None, None))


async def mark_cancelled(bucket: Bucket, known: RunList, *, by: str, position: int) -> RunList:
    """Record in the list of a run that the run was cancelled, unless it says so already.

    Args:
        by: who cancelled it; no personal data but the name that an erasure's receipt would have.
        position: how many of its IDs had been queued.

    Raises:
        ManifestChanged: others change the list all the time.
        StorageError: it may not be written.
    """
    return await _update_list(
        bucket, known, lambda each: each if each.cancelled_at else each.with_cancellation(utc_now(), by, position)
    )


async def find_run_list(bucket: Bucket, run: str, fingerprint: str | None, environment: str) -> RunList | None:
    """Return the list of a run with this fingerprint, or None if no environment has it.

    Args:
        fingerprint: see ``RunList.fingerprint``.
        environment: where to look first; a run may be of an account with another one.

    Raises:
        IntegrityError: a list of this name is damaged.
        StorageError: the bucket did not say.
    """
    for each in sorted(ENVIRONMENTS, key=lambda each: each != environment):
        found = await read_run_list(bucket, each, run)
        if found and found.fingerprint == fingerprint:
            return found
    return None


async def read_run_list(bucket: Bucket, environment: str, run: str) -> RunList | None:
    """Return the list of a run, or None where there is none.

    Raises:
        IntegrityError: there is one, but not one that we could have written.
        StorageError: the bucket did not say.
    """
    found = await bucket.read(_list_key(environment, run))
    return _parse_list(run, found.data) if found else None


async def read_chunk(bucket: Bucket, piece: Chunk) -> list[str]:
    """Return the IDs of a piece.

    Raises:
        IntegrityError: it is not there as it was written.
        StorageError: the bucket did not say.
    """
    return (await read_chunk_with_facts(bucket, piece))[0]


async def read_chunk_with_facts(bucket: Bucket, piece: Chunk) -> tuple[list[str], Mapping[str, EvaluationFacts]]:
    """Return the IDs of a piece, and what is known of some of them.

    Raises:
        IntegrityError: it is not there as it was written.
        StorageError: the bucket did not say.
    """
    found = await bucket.read(piece.key)
    if found is None or hashlib.sha256(found.data).hexdigest() != piece.sha256:
        raise IntegrityError("a piece of a run's list is gone or damaged")
    try:
        text = zlib.decompressobj(_GZIP).decompress(found.data, piece.ids * _LINE + 1).decode("ascii")
        lines = [line.partition(" ") for line in text.splitlines()]
        eval_ids = [parse_eval_id(eval_id) for eval_id, _, _ in lines]
        # Few lines differ in what follows the ID unless they have times.
        parsed = {words: _parse_facts(words) for words in {words for _, _, words in lines if words}}
    except (zlib.error, ValueError, BadEvalId):
        eval_ids, lines, parsed = [], [], {}
    if len(eval_ids) != piece.ids:
        raise IntegrityError("a piece of a run's list does not hold what its run says")
    return eval_ids, {eval_id: parsed[words] for eval_id, (_, _, words) in zip(eval_ids, lines, strict=True) if words}


def _format_line(eval_id: str, facts: EvaluationFacts) -> str:
    return " ".join((eval_id, *_words(facts)))


def _words(facts: EvaluationFacts) -> Iterator[str]:
    yield from map(str, facts.evidence)
    if facts.event_at is not None:
        yield f"{_EVENT_AT}{format_utc(facts.event_at)}"


def _parse_facts(words: str) -> EvaluationFacts:
    """Return the facts of a line; words of later versions are passed over."""
    evidence, event_at = [], None
    for word in words.split():
        if word in _EVIDENCE:
            evidence.append(Evidence(word))
        elif word.startswith(_EVENT_AT):
            event_at = datetime.fromisoformat(word.removeprefix(_EVENT_AT)).timestamp()
    return EvaluationFacts(tuple(evidence), event_at)


def _parse_list(run: str, data: bytes) -> RunList:
    try:
        return RunList.model_validate_json(data)
    except ValidationError:
        raise IntegrityError(f"the list of run {run} is damaged or of a newer format") from None


async def _update_list(bucket: Bucket, known: RunList, change: Callable[[RunList], RunList]) -> RunList:
    """Change the list of a run as it is in the archive now; return what it says then."""
    key = _list_key(known.environment, known.run)
    for _ in range(_UPDATE_ATTEMPTS):
        found = await bucket.read(key)
        if found is None:
            raise IntegrityError(f"the list of run {known.run} is gone")
        before = _parse_list(known.run, found.data)
        if (changed := change(before)) == before:
            return before
        try:
            await bucket.replace(key, changed.as_json(), ObjectAttributes("application/json"), found.etag)
        except (ManifestChanged, WriteUnconfirmed):
            # Another process changed it, or our own write arrived without its answer: read it again.
            continue
        return changed
    raise ManifestChanged


def _list_key(environment: str, run: str) -> str:
    return f"runs/{environment}/{run}/run.json"


async def _store_chunk(bucket: Bucket, environment: str, run: str, lines: Sequence[str]) -> Chunk:
    # Without a time, so that the same IDs are the same bytes.
    data = gzip.compress("".join(f"{line}\n" for line in lines).encode(), mtime=0)
    sha256 = hashlib.sha256(data).hexdigest()
    key = f"runs/{environment}/{run}/{sha256}.txt.gz"
    await put(bucket, key, data, sha256, ObjectAttributes("application/gzip", {"sha256": sha256}))
    return Chunk(key=key, ids=len(lines), sha256=sha256)


async def _store_list(bucket: Bucket, made: RunList) -> RunList:
    """Write it where there is none; return the one that is there then."""
    key = _list_key(made.environment, made.run)
    try:
        await bucket.replace(key, made.as_json(), ObjectAttributes("application/json"), None)
    except (ManifestChanged, WriteUnconfirmed):
        known = await read_run_list(bucket, made.environment, made.run)
        if known is None:
            raise
        return known
    return made
