"""The records of legal holds: the matters, and the evaluations that were added to each.

    holds/{matter}/matter.json                                        who created it when and why, and its release
    holds/{matter}/additions/{environment}/{time}-{hash}.json.gz      evaluations that were added at once

A matter covers both environments. An addition is written before its evaluations are held, so that a release finds every
evaluation that may be under the matter. After an interruption, an evaluation may be in more than one addition.
"""

import enum
import gzip
import hashlib
import re
import zlib
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime
from operator import not_
from typing import Literal

from pydantic import ConfigDict, Field, ValidationError

from tasks.errors import BadEvalId, IntegrityError, ManifestChanged
from tasks.model.evaluation import Evaluation, parse_eval_id
from tasks.model.matter_name import parse_matter
from tasks.storage.bucket import Bucket, ObjectAttributes, StoredObject, WriteUnconfirmed, put
from tasks.storage.manifest import archiver, utc_now
from tasks.storage.manifest_records import UTC_TIME, ArchiveRecord

HOLDS = "holds/"
"""Prefix of the keys of all records of legal holds."""
ADDED_AT_ONCE = 1_000
"""Maximum number of evaluations in one addition."""
_LABELS = ObjectAttributes("application/json")
_PACKED = ObjectAttributes("application/gzip")
_RECORD_KEY = re.compile(rf"{HOLDS}([a-z0-9-]+)/matter\.json", re.ASCII)
_MAX_BYTES = 1 << 20
_UPDATE_ATTEMPTS = 5
_GZIP = 31  # makes zlib expect the header of gzip


class MatterState(enum.StrEnum):
    """The state of a matter."""

    OPEN = "open"
    RELEASING = "releasing"
    """Its release has begun, and evaluations may still be under it; nothing is added any more."""
    RELEASED = "released"


def _is_none(value: object) -> bool:
    return value is None


class MatterRecord(ArchiveRecord):
    """A matter; fields of a newer release are kept when the record is written again."""

    model_config = ConfigDict(extra="allow")

    schema_: Literal[1] = Field(default=1, alias="schema", description="Version of this format.")
    matter: str = Field(description="Its name.")
    reason: str = Field(description="Why it exists, in the operator's words.")
    created_at: str = Field(pattern=UTC_TIME)
    created_by: str
    release_reason: str | None = Field(default=None, exclude_if=_is_none, description="Why it was released.")
    released_by: str | None = Field(default=None, exclude_if=_is_none)
    release_begun_at: str | None = Field(default=None, exclude_if=_is_none, pattern=UTC_TIME)
    released_at: str | None = Field(
        default=None, exclude_if=_is_none, pattern=UTC_TIME, description="When no evaluation was under it any more."
    )
    archiver: str

    @property
    def state(self) -> MatterState:
        """Whether evaluations can be under the matter."""
        if self.released_at:
            return MatterState.RELEASED
        return MatterState.RELEASING if self.release_begun_at else MatterState.OPEN


class AdditionRecord(ArchiveRecord):
    """Evaluations that were added to a matter at once."""

    schema_: Literal[1] = Field(default=1, alias="schema", description="Version of this format.")
    matter: str
    environment: str
    added_at: str = Field(pattern=UTC_TIME)
    added_by: str
    kinds: tuple[str, ...] = Field(
        default=(), exclude_if=not_, description="The kinds of documents that are held; absent if all are."
    )
    eval_ids: tuple[str, ...] = Field(min_length=1, max_length=ADDED_AT_ONCE)


async def create_matter(bucket: Bucket, matter: str, reason: str, by: str) -> MatterRecord:
    """Create a matter; return its record, or the existing one of this name.

    Raises:
        IntegrityError: the existing record is damaged.
        StorageError: the record may not have been written.
    """
    record = MatterRecord(matter=matter, reason=reason, created_at=utc_now(), created_by=by, archiver=archiver())
    try:
        await bucket.replace(_matter_key(matter), record.as_json(), _LABELS, None)
    except (ManifestChanged, WriteUnconfirmed):
        known = await read_matter(bucket, matter)
        if known is None:
            raise
        return known
    return record


async def read_matter(bucket: Bucket, matter: str) -> MatterRecord | None:
    """Return the record of a matter, or None if it does not exist.

    Raises:
        IntegrityError: it is damaged.
        StorageError: the bucket could not be read.
    """
    found = await bucket.read(_matter_key(matter), _MAX_BYTES)
    return _parse_matter(found, matter) if found else None


async def begin_release(bucket: Bucket, matter: str, reason: str, by: str) -> MatterRecord | None:
    """Record that a release has begun, after which nothing can be added; an earlier one keeps its reason.

    Returns:
        The record, or None if there is no such matter.

    Raises:
        IntegrityError: the record is damaged.
        ManifestChanged: other processes changed it each time.
        StorageError: it may not have been written.
    """
    begun = {"release_begun_at": utc_now(), "released_by": by, "release_reason": reason}
    return await _update(
        bucket, matter, lambda known: known if known.release_begun_at else known.model_copy(update=begun)
    )


async def complete_release(bucket: Bucket, matter: str) -> MatterRecord | None:
    """Record that no evaluation is under a matter any more; return and raise as ``begin_release``."""
    return await _update(
        bucket,
        matter,
        lambda known: known if known.released_at else known.model_copy(update={"released_at": utc_now()}),
    )


async def _update(bucket: Bucket, matter: str, change: Callable[[MatterRecord], MatterRecord]) -> MatterRecord | None:
    for _ in range(_UPDATE_ATTEMPTS):
        found = await bucket.read(_matter_key(matter), _MAX_BYTES)
        if found is None:
            return None
        known = _parse_matter(found, matter)
        changed = change(known)
        if changed == known:
            return known
        try:
            await bucket.replace(_matter_key(matter), changed.as_json(), _LABELS, found.etag)
        except (ManifestChanged, WriteUnconfirmed):
            # Another process changed it, or this write arrived but its response was lost, so read it again.
            continue
        return changed
    raise ManifestChanged


async def list_matters(bucket: Bucket) -> AsyncIterator[MatterRecord]:
    """Yield every matter, in the order of their names; raise as ``read_matter``."""
    async for some in bucket.list_objects(HOLDS):
        for name in (key[1] for key in map(_RECORD_KEY.fullmatch, (each.key for each in some)) if key):
            if record := await read_matter(bucket, name):
                yield record


async def record_addition(
    bucket: Bucket, matter: str, environment: str, eval_ids: Sequence[str], by: str, kinds: Sequence[str] = ()
) -> AdditionRecord:
    """Record that evaluations, at most ``ADDED_AT_ONCE``, are added to a matter.

    Args:
        kinds: kinds of the documents to hold; empty for all.

    Raises:
        StorageError: the record may not have been written.
    """
    now = datetime.now(UTC)
    record = AdditionRecord(
        matter=matter,
        environment=environment,
        added_at=now.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        added_by=by,
        kinds=tuple(kinds),
        eval_ids=tuple(eval_ids),
    )
    data = gzip.compress(record.as_json(), mtime=0)
    digest = hashlib.sha256(data).hexdigest()
    key = f"{_additions(matter, environment)}{now:%Y%m%dT%H%M%S.%fZ}-{digest[:8]}.json.gz"
    await put(bucket, key, data, digest, _PACKED)
    return record


async def read_additions(bucket: Bucket, matter: str, environment: str) -> AsyncIterator[AdditionRecord]:
    """Yield the additions to a matter, the oldest first.

    Raises:
        IntegrityError: a record is damaged.
        StorageError: the bucket could not be read.
    """
    async for some in bucket.list_objects(_additions(matter, environment)):
        for listed in some:
            found = await bucket.read(listed.key, _MAX_BYTES)
            if found:
                yield _parse_addition(found, matter, environment)


async def find_recorded_matters(bucket: Bucket, evaluation: Evaluation) -> tuple[str, ...]:
    """Return the matters that may cover an evaluation according to these records, without its manifest.

    This reads every addition to every matter that is not released, so check the manifest first.

    Raises:
        IntegrityError: a record is damaged.
        StorageError: the bucket could not be read.
    """
    found: dict[str, None] = {}
    async for each in list_matters(bucket):
        if each.state is not MatterState.RELEASED:
            async for addition in read_additions(bucket, each.matter, evaluation.environment):
                if evaluation.eval_id in addition.eval_ids:
                    found[each.matter] = None
    return tuple(found)


def _matter_key(matter: str) -> str:
    return f"{HOLDS}{parse_matter(matter)}/matter.json"


def _additions(matter: str, environment: str) -> str:
    return f"{HOLDS}{parse_matter(matter)}/additions/{environment}/"


def _parse_matter(found: StoredObject, matter: str) -> MatterRecord:
    try:
        record = MatterRecord.model_validate_json(found.data)
    except ValidationError:
        raise IntegrityError(f"the record of matter {matter} is damaged or of a newer format") from None
    if record.matter != matter:
        raise IntegrityError(f"the record of matter {matter} is of another matter")
    return record


def _parse_addition(found: StoredObject, matter: str, environment: str) -> AdditionRecord:
    try:
        data = zlib.decompressobj(_GZIP).decompress(found.data, _MAX_BYTES)
        record = AdditionRecord.model_validate_json(data)
        is_canonical = all(parse_eval_id(each) == each for each in record.eval_ids)
    except (zlib.error, ValidationError, BadEvalId):
        raise IntegrityError(f"an addition to matter {matter} is damaged or of a newer format") from None
    if (record.matter, record.environment) != (matter, environment) or not is_canonical:
        raise IntegrityError(f"an addition to matter {matter} contradicts itself")
    return record
