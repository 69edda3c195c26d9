"""One evaluation's way out of the archive, one line per step.

The order is the promise. The receipt comes first, so that whatever is cut off is seen. Then the marker: from then on no
worker begins with the evaluation. Then it is waited for the one that had begun before. Only then is anything removed.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from scripts.erase.marker import is_marker, replace_with_marker
from scripts.erase.receipt import (
    ErasureRequest,
    Receipt,
    StoredReceipt,
    begin,
    complete,
    find_unfinished,
    keys_of,
    make_receipt,
)
from scripts.erase.stock import ObjectVersion, ObjectVersions
from scripts.erase.traces import RedisRecords
from tasks.model.evaluation import Evaluation
from tasks.storage.bucket import Bucket
from worker.clients.errors import ServiceUnavailable

_SWEEPS = 3
_BUSY = "it is being worked on; give the same command again in a minute"


@dataclass(frozen=True, slots=True)
class ErasureStores:
    """Where an evaluation may have left something.

    Attributes:
        bucket: the archive.
        versions: the same, with its versions.
        redis_records: in Redis.
        tags: the user's own tags, for the marker.
    """

    bucket: Bucket
    versions: ObjectVersions
    redis_records: RedisRecords
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Erased:
    """Everything is gone; the receipt says what it was."""

    receipt: StoredReceipt


@dataclass(frozen=True, slots=True)
class WouldErase:
    """What would go; nothing was changed."""

    receipt: Receipt


@dataclass(frozen=True, slots=True)
class ErasureRefused:
    """Nothing was removed, for this reason."""

    why: str


ErasureResult = Erased | WouldErase | ErasureRefused


async def erase_one(
    evaluation: Evaluation, asked: ErasureRequest, place: ErasureStores, *, dry_run: bool = False
) -> ErasureResult:
    """Erase one evaluation, or go on where a former try was cut off.

    Raises:
        ServiceUnavailable: S3, or the folder, does not do what it was asked.
        StorageError: the same.
        IntegrityError: a receipt is not ours.
    """
    kept = await find_unfinished(place.bucket, await asyncio.to_thread(keys_of, place.versions, evaluation))
    items = await _items_to_remove(evaluation, place)
    why = await asyncio.to_thread(place.versions.locks, items, bypass_governance=asked.bypass_governance)
    if why:
        return ErasureRefused(why)
    if dry_run:
        return WouldErase(kept.receipt if kept else await _begin_or_resume(evaluation, asked, place, items))
    if not await place.redis_records.are_free(evaluation.eval_id):
        return ErasureRefused(_BUSY)
    kept = kept or await begin(place.bucket, await _begin_or_resume(evaluation, asked, place, items))
    await replace_with_marker(place.bucket, evaluation, kept, place.tags)
    if not await place.redis_records.remove(evaluation.eval_id):
        return ErasureRefused(_BUSY)
    why = await _sweep(evaluation, asked, place)
    return ErasureRefused(why) if why else Erased(await complete(place.bucket, kept))


async def _items_to_remove(evaluation: Evaluation, place: ErasureStores) -> list[ObjectVersion]:
    """Return everything of an evaluation but the marker, where that is there already."""
    items = await asyncio.to_thread(place.versions.items, evaluation)
    if not is_marker(await place.bucket.read(evaluation.manifest_key)):
        return items
    return [item for item in items if not (item.key == evaluation.manifest_key and item.latest and not item.deletion)]


async def _begin_or_resume(
    evaluation: Evaluation, asked: ErasureRequest, place: ErasureStores, items: Sequence[ObjectVersion]
) -> Receipt:
    found = await place.bucket.read(evaluation.manifest_key)
    return make_receipt(evaluation, asked, items, None if found is None or is_marker(found) else found.data)


async def _sweep(evaluation: Evaluation, asked: ErasureRequest, place: ErasureStores) -> str | None:
    """Remove until nothing is left; return why not, where something came that is locked.

    Raises:
        ServiceUnavailable: there is always more.
    """
    bypass = asked.bypass_governance
    for _ in range(_SWEEPS):
        items = await _items_to_remove(evaluation, place)
        if not items:
            await asyncio.to_thread(place.versions.tidy, evaluation)
            return None
        why = await asyncio.to_thread(place.versions.locks, items, bypass_governance=bypass)
        if why:
            return why
        await asyncio.to_thread(place.versions.remove, items, bypass_governance=bypass)
    raise ServiceUnavailable(
        f"{evaluation.eval_id}: something goes on writing to it; give the same command again later"
    )
