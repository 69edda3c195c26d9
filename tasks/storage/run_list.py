"""The list of a run: its IDs, each once, in the archive. From there workers feed the ledger, and reports are made.

Redis stays small whatever a backfill names, and a run can be told of for as long as the archive is there.

    runs/{environment}/{run}/{sha256}.txt.gz     some of its IDs, one a line
    runs/{environment}/{run}/run.json            what the run is, and its pieces in order; written last
"""

import gzip
import hashlib
import itertools
import zlib
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

from pydantic import Field, ValidationError

from tasks.errors import BadEvalId, IntegrityError, ManifestChanged, RunCancelled, RunTaken
from tasks.model.account import DEFAULT_ACCOUNT
from tasks.model.evaluation import ENVIRONMENTS, parse_eval_id
from tasks.model.outcome import ManifestOutcome
from tasks.storage.bucket import Bucket, ObjectAttributes, WriteUnconfirmed, put
from tasks.storage.manifest import SHA256, ArchiveRecord, archiver, utc_now

CHUNK_SIZE = 50_000
"""IDs in one piece."""
_LINE = 37
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
        """What the ledger knows the list by: the same IDs asked for with another account are another list."""
        fingerprint = self.source.fingerprint
        return fingerprint if self.account == DEFAULT_ACCOUNT else f"{fingerprint}:{self.account}"

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
) -> RunList:
    """Put the list of a run into the archive, or find the same one there; return it.

    Args:
        again: if the run was cancelled, begin it again.

    Raises:
        RunTaken: the name means another list.
        RunCancelled: the run was cancelled, and is not to begin again.
        StorageError: it may not be there.
    """
    known = await read_run_list(bucket, environment, run)
    if known is None:
        rest, pieces = iter(eval_ids), []
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
    meant = (source.fingerprint, account, refresh, even_if_erased, refresh_outcomes)
    found = (known.source.fingerprint, known.account, known.refresh, known.even_if_erased, known.refresh_outcomes)
    if found != meant:
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
    found = await bucket.read(piece.key)
    if found is None or hashlib.sha256(found.data).hexdigest() != piece.sha256:
        raise IntegrityError("a piece of a run's list is gone or damaged")
    try:
        lines = zlib.decompressobj(_GZIP).decompress(found.data, piece.ids * _LINE + 1).decode("ascii").split()
        eval_ids = [parse_eval_id(line) for line in lines]
    except (zlib.error, UnicodeDecodeError, BadEvalId):
        eval_ids = []
    if len(eval_ids) != piece.ids:
        raise IntegrityError("a piece of a run's list does not hold what its run says")
    return eval_ids


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


async def _store_chunk(bucket: Bucket, environment: str, run: str, eval_ids: Sequence[str]) -> Chunk:
    # Without a time, so that the same IDs are the same bytes.
    data = gzip.compress("".join(f"{eval_id}\n" for eval_id in eval_ids).encode(), mtime=0)
    sha256 = hashlib.sha256(data).hexdigest()
    key = f"runs/{environment}/{run}/{sha256}.txt.gz"
    await put(bucket, key, data, sha256, ObjectAttributes("application/gzip", {"sha256": sha256}))
    return Chunk(key=key, ids=len(eval_ids), sha256=sha256)


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
