"""Store the list of a run's IDs, each once, in the archive. Workers feed the ledger from it; reports read it.

This keeps Redis small even for large backfills, and a run can be reported as long as its archive exists.

    runs/{environment}/{run}/{sha256}.txt.gz     a chunk of its IDs, one per line, each with its known facts
    runs/{environment}/{run}/run.json            the options of the run, and its chunks in order; written last
"""

import gzip
import hashlib
import itertools
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Literal

from pydantic import ConfigDict, Field, ValidationError

from tasks.errors import BadEvalId, BadRunName, IntegrityError, ManifestChanged, RunCancelled, RunTaken
from tasks.model.account import DEFAULT_ACCOUNT
from tasks.model.evaluation import ENVIRONMENTS, parse_eval_id
from tasks.model.evidence import EvaluationFacts
from tasks.model.outcome import Evidence, ManifestOutcome
from tasks.model.run_name import parse_run
from tasks.storage.bucket import Bucket, ObjectAttributes, WriteUnconfirmed, put
from tasks.storage.manifest import archiver, format_utc, utc_now
from tasks.storage.manifest_records import SHA256, ArchiveRecord

CHUNK_SIZE = 50_000
"""IDs in one chunk."""
_MAX_LINE_BYTES = 256
_EVENT_AT = "event_at:"
_EVIDENCE = frozenset(map(str, Evidence))
_UPDATE_ATTEMPTS = 5
_GZIP = 31  # makes zlib expect the header of gzip


def _is_none(value: object) -> bool:
    return value is None


class Chunk(ArchiveRecord):
    """A part of the IDs."""

    key: str
    ids: int = Field(ge=1, le=CHUNK_SIZE)
    sha256: str = Field(pattern=SHA256, description="Hash of the object's bytes.")


class RunSource(ArchiveRecord):
    """The source of a run's IDs."""

    model_config = ConfigDict(extra="allow")

    name: str = Field(description="Name of the file, without its folder.")
    fingerprint: str = Field(pattern=SHA256, description="Hash of its IDs, each once, in order.")
    facts: str | None = Field(
        default=None,
        pattern=SHA256,
        exclude_if=lambda value: value is None,
        description="Hash of the lines of all its chunks; absent if they hold nothing but IDs.",
    )
    ids: int = Field(ge=1, description="How many there are.")
    repeated: int = Field(ge=0, description="How many duplicates were left out.")
    bad: int = Field(ge=0, description="Lines without a valid evaluation ID.")


class RunList(ArchiveRecord):
    """The options and the chunks of a run; fields of a newer release are kept when the list is written again."""

    model_config = ConfigDict(extra="allow")

    schema_: Literal[1] = Field(alias="schema", description="Version of this format.")
    run: str
    environment: str
    account: str
    refresh: bool = Field(description="Whether RiskOS is asked although there is a manifest.")
    even_if_erased: bool = Field(
        default=False, description="Whether what was erased before ``begun_at`` is archived again."
    )
    refresh_outcomes: tuple[str, ...] = Field(
        default=(), description="Outcomes of manifests for which RiskOS is asked again; a newer release has more."
    )
    source: RunSource
    pieces: tuple[Chunk, ...]
    begun_at: str
    begun_by: str | None = Field(default=None, exclude_if=_is_none, description="Who began it, if that is known.")
    archiver: str
    cancelled_at: str | None = Field(default=None, exclude_if=_is_none, description="When it was cancelled, if so.")
    cancelled_by: str | None = Field(default=None, exclude_if=_is_none, description="Who cancelled it.")
    position: int | None = Field(
        default=None, exclude_if=_is_none, description="How many of its IDs had been queued when it was cancelled."
    )

    @property
    def fingerprint(self) -> str:
        """The ID of the list in the ledger; another account or other facts give another ID."""
        account = "" if self.account == DEFAULT_ACCOUNT else self.account
        return ":".join(filter(None, (self.source.fingerprint, account, self.source.facts)))

    def with_cancellation(self, at: str | None, by: str | None, position: int | None) -> "RunList":
        """Return the list with these facts of its cancellation; pass None for all three to remove it."""
        return self.model_copy(update={"cancelled_at": at, "cancelled_by": by, "position": position})

    def chunk_at(self, position: int) -> tuple[Chunk, int]:
        """Return the chunk that holds the ID at a position, and how many IDs come before that chunk.

        Raises:
            IndexError: the list is not that long.
        """
        before = 0
        for chunk in self.pieces:
            if position < before + chunk.ids:
                return chunk, before
            before += chunk.ids
        raise IndexError(position)

    def same_run(self, other: "RunList") -> bool:
        """Return whether another list has the same IDs, facts and options."""
        return self.comparison_key() == other.comparison_key()

    def comparison_key(self) -> tuple[object, ...]:
        """Return the value by which two lists are compared."""
        source = (self.source.fingerprint, self.source.facts)
        return (*source, self.account, self.refresh, self.even_if_erased, self.refresh_outcomes)


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
    by: str | None = None,
) -> RunList:
    """Store the list of a run in the archive, unless the same list is there; return it.

    Args:
        again: begin the run again if it was cancelled.
        facts: the known facts of each ID, in the order of the IDs; None if no facts are known.
        by: operator that begins the run. This name, which a receipt of an erasure also has, is the only personal data.

    Raises:
        RunTaken: another list has this name.
        RunCancelled: the run was cancelled, and ``again`` is False.
        IntegrityError: the stored list is damaged.
        StorageError: the list may not be in the archive.
    """
    wanted = RunList(
        schema=1,
        run=run,
        environment=environment,
        account=account,
        refresh=refresh,
        even_if_erased=even_if_erased,
        refresh_outcomes=refresh_outcomes,
        source=source,
        pieces=(),
        begun_at=utc_now(),
        begun_by=by,
        archiver=archiver(),
    )
    known = await read_run_list(bucket, environment, run)
    if known is None:
        chunks = await _store_chunks(bucket, wanted, eval_ids if facts is None else map(_format_line, eval_ids, facts))
        known = await _store_list(bucket, wanted.model_copy(update={"pieces": chunks, "begun_at": utc_now()}))
    if not known.same_run(wanted):
        raise RunTaken(run, known.begun_at)
    return known if known.cancelled_at is None else await _begin_again(bucket, known, may_begin=again)


async def _begin_again(bucket: Bucket, known: RunList, *, may_begin: bool) -> RunList:
    if not may_begin:
        raise RunCancelled(known.run)
    return await _update_list(bucket, known, lambda each: each.with_cancellation(None, None, None))


async def mark_cancelled(bucket: Bucket, known: RunList, *, by: str, position: int) -> RunList:
    """Record in the list of a run that the run was cancelled, unless it is recorded already.

    Args:
        by: operator that cancelled it. This name, which a receipt of an erasure also has, is the only personal data.
        position: how many of its IDs had been queued.

    Raises:
        ManifestChanged: other processes changed the list each time.
        StorageError: the list may not have been written.
    """
    return await _update_list(
        bucket, known, lambda each: each if each.cancelled_at else each.with_cancellation(utc_now(), by, position)
    )


async def find_run_list(bucket: Bucket, run: str, fingerprint: str | None, environment: str) -> RunList | None:
    """Return the list of a run with this fingerprint, or None if no environment has it.

    Args:
        fingerprint: see ``RunList.fingerprint``.
        environment: the environment to look in first; the account of a run may have another one.

    Raises:
        IntegrityError: a list of this name is damaged.
        StorageError: the bucket could not be read.
    """
    for each in sorted(ENVIRONMENTS, key=lambda each: each != environment):
        found = await read_run_list(bucket, each, run)
        if found and found.fingerprint == fingerprint:
            return _check_list(found, run, each)
    return None


async def read_run_list(bucket: Bucket, environment: str, run: str) -> RunList | None:
    """Return the list of a run, or None if it does not exist.

    Raises:
        IntegrityError: the list is damaged, or this program cannot have written it.
        StorageError: the bucket could not be read.
    """
    found = await bucket.read(list_key(environment, run))
    return parse_list(run, found.data) if found else None


async def read_chunk(bucket: Bucket, chunk: Chunk) -> list[str]:
    """Return the IDs of a chunk.

    Raises:
        IntegrityError: the chunk is missing or damaged.
        StorageError: the bucket could not be read.
    """
    return (await read_chunk_with_facts(bucket, chunk))[0]


async def read_chunk_with_facts(bucket: Bucket, chunk: Chunk) -> tuple[list[str], Mapping[str, EvaluationFacts]]:
    """Return the IDs of a chunk, and the facts of those that have some.

    Raises:
        IntegrityError: the chunk is missing or damaged.
        StorageError: the bucket could not be read.
    """
    found = await bucket.read(chunk.key)
    if found is None or hashlib.sha256(found.data).hexdigest() != chunk.sha256:
        raise IntegrityError("a chunk of a run's list is missing or damaged")
    try:
        text = zlib.decompressobj(_GZIP).decompress(found.data, chunk.ids * _MAX_LINE_BYTES + 1).decode("ascii")
        lines = [line.partition(" ") for line in text.splitlines()]
        eval_ids = [parse_eval_id(eval_id) for eval_id, _, _ in lines]
        # Most lines have the same text after the ID unless they have times, so each text is parsed once.
        parsed = {words: _parse_facts(words) for words in {words for _, _, words in lines if words}}
    except (zlib.error, ValueError, BadEvalId):
        eval_ids, lines, parsed = [], [], {}
    if len(eval_ids) != chunk.ids:
        raise IntegrityError("a chunk of a run's list does not match its run")
    return eval_ids, {eval_id: parsed[words] for eval_id, (_, _, words) in zip(eval_ids, lines, strict=True) if words}


async def read_cancelled_ids(bucket: Bucket, environment: str) -> set[str]:
    """Return the IDs of every list whose run was cancelled.

    Raises:
        IntegrityError: a list is damaged, so its cancelled IDs are unknown.
        StorageError: the bucket could not be read.
    """
    runs = []
    async for some in bucket.list_objects(f"runs/{environment}/"):
        runs += [each.key.split("/")[2] for each in some if each.key.endswith("/run.json")]
    found: set[str] = set()
    for run in runs:
        known = await read_run_list(bucket, environment, run)
        for piece in known.pieces if known and known.cancelled_at else ():
            found.update(await read_chunk(bucket, piece))
    return found


def _format_line(eval_id: str, facts: EvaluationFacts) -> str:
    return " ".join((eval_id, *_words(facts)))


def _words(facts: EvaluationFacts) -> Iterator[str]:
    yield from map(str, facts.evidence)
    if facts.event_at is not None:
        yield f"{_EVENT_AT}{format_utc(facts.event_at)}"


def _parse_facts(words: str) -> EvaluationFacts:
    """Return the facts of a line; words of a newer release are ignored."""
    evidence, event_at = [], None
    for word in words.split():
        if word in _EVIDENCE:
            evidence.append(Evidence(word))
        elif word.startswith(_EVENT_AT):
            event_at = datetime.fromisoformat(word.removeprefix(_EVENT_AT)).timestamp()
    return EvaluationFacts(tuple(evidence), event_at)


def parse_list(run: str, data: bytes) -> RunList:
    """Return the list of a run from its bytes.

    Raises:
        IntegrityError: the list is damaged, or has a newer format.
    """
    try:
        return RunList.model_validate_json(data)
    except ValidationError:
        raise IntegrityError(f"the list of run {run} is damaged or of a newer format") from None


def _check_list(found: RunList, run: str, environment: str) -> RunList:
    """Check that the key, the chunks and the number of IDs of a list are consistent; return the list.

    Raises:
        IntegrityError: the list contradicts itself.
    """
    keys = [_chunk_key(environment, run, chunk.sha256) for chunk in found.pieces]
    is_sound = (found.run, found.environment) == (run, environment) and keys == [chunk.key for chunk in found.pieces]
    if not is_sound or sum(chunk.ids for chunk in found.pieces) != found.source.ids:
        raise IntegrityError(f"the list of run {run} contradicts itself")
    return found


async def _update_list(bucket: Bucket, known: RunList, change: Callable[[RunList], RunList]) -> RunList:
    """Apply a change to the current list of a run in the archive; return the changed list."""
    key = list_key(known.environment, known.run)
    for _ in range(_UPDATE_ATTEMPTS):
        found = await bucket.read(key)
        if found is None:
            raise IntegrityError(f"the list of run {known.run} is gone")
        before = parse_list(known.run, found.data)
        if (changed := change(before)) == before:
            return before
        try:
            await bucket.replace(key, changed.as_json(), ObjectAttributes("application/json"), found.etag)
        except (ManifestChanged, WriteUnconfirmed):
            # Another process changed the list, or this write arrived but its response was lost, so read it again.
            continue
        return changed
    raise ManifestChanged


def _chunk_key(environment: str, run: str, sha256: str) -> str:
    return f"runs/{environment}/{run}/{sha256}.txt.gz"


def list_key(environment: str, run: str) -> str:
    """Return the key of a run's list.

    Raises:
        IntegrityError: the name of the run, which may come from Redis, is not valid.
    """
    try:
        parse_run(run)
    except BadRunName as error:
        raise IntegrityError(str(error)) from None
    return f"runs/{environment}/{run}/run.json"


async def _store_chunks(bucket: Bucket, made: RunList, lines: Iterable[str]) -> tuple[Chunk, ...]:
    rest, chunks = iter(lines), []
    while some := tuple(itertools.islice(rest, CHUNK_SIZE)):
        chunks.append(await store_chunk(bucket, made.environment, made.run, some))
    return tuple(chunks)


async def store_chunk(bucket: Bucket, environment: str, run: str, lines: Sequence[str]) -> Chunk:
    """Store lines of a list, at most ``CHUNK_SIZE``, in the archive; return their chunk."""
    # The gzip header contains no time, so the same IDs give the same bytes.
    data = gzip.compress("".join(f"{line}\n" for line in lines).encode(), mtime=0)
    sha256 = hashlib.sha256(data).hexdigest()
    key = _chunk_key(environment, run, sha256)
    await put(bucket, key, data, sha256, ObjectAttributes("application/gzip", {"sha256": sha256}))
    return Chunk(key=key, ids=len(lines), sha256=sha256)


async def _store_list(bucket: Bucket, made: RunList) -> RunList:
    """Write the list unless one exists; return the stored list."""
    key = list_key(made.environment, made.run)
    try:
        await bucket.replace(key, made.as_json(), ObjectAttributes("application/json"), None)
    except (ManifestChanged, WriteUnconfirmed):
        known = await read_run_list(bucket, made.environment, made.run)
        if known is None:
            raise
        return known
    return made
