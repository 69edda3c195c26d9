"""Check records that no manifest describes: events of retention rules, legal holds, receipts and certificates.

The key of an event or of an addition to a legal hold has the beginning of the SHA-256 of its bytes. Receipts and
certificates are named before they are complete.
"""

import hashlib
import re

import orjson
from pydantic import ValidationError

from scripts.verify.context import VerifyContext
from scripts.verify.layout import ArchiveArea, ArchivePlace, ObjectGroup
from scripts.verify.problems import Difference, Problem
from tasks.errors import IntegrityError, StorageError
from tasks.retention.event import EventRecord
from tasks.storage.bucket import ListedObject

_HASH = re.compile(r"-([0-9a-f]{8})\.json(?:\.gz)?\Z")
_NAMED_BY_HASH = frozenset({ArchiveArea.EVENT, ArchiveArea.LEGAL_HOLD})
_LARGEST_RECORD = 64 << 20


async def check_records(ctx: VerifyContext, group: ObjectGroup) -> list[Difference]:
    """Return the differences of the events of an evaluation, or of another record."""
    objects = await ctx.objects(group.place.prefix) if group.objects is None else group.objects
    ctx.progress.records[group.place.area] += len(objects)
    differences: list[Difference] = []
    for stored in objects:
        try:
            fault, problem = await _find_fault(ctx, group.place, stored), Problem.RECORD_DAMAGED
        except IntegrityError as error:
            fault, problem = str(error), Problem.RECORD_DAMAGED
        except StorageError as error:
            fault, problem = str(error), Problem.NOT_READ
        if fault:
            differences.append(Difference(group.place.name, stored.key, problem, fault))
    return differences


async def _find_fault(ctx: VerifyContext, place: ArchivePlace, stored: ListedObject) -> str | None:
    """Return why a record is not valid, or None if it is, or does not exist any more."""
    if stored.size < 0:
        return "it is not a file"
    async with ctx.read_limit:
        found = await ctx.bucket.read(stored.key, _LARGEST_RECORD)
    if found is None:
        return None
    named = _HASH.search(stored.key) if place.area in _NAMED_BY_HASH else None
    if named and not hashlib.sha256(found.data).hexdigest().startswith(named[1]):
        return "its bytes have changed since it was written"
    return None if _is_valid(place, stored.key, found.data) else "it is not a valid record"


def _is_valid(place: ArchivePlace, key: str, data: bytes) -> bool:
    if key.endswith(".gz"):
        return True
    try:
        if place.area is not ArchiveArea.EVENT:
            return isinstance(orjson.loads(data), dict)
        event = EventRecord.model_validate_json(data)
    except (orjson.JSONDecodeError, ValidationError):
        return False
    return (event.environment, event.eval_id) == (place.environment, place.name)
