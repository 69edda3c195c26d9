"""One evaluation's way out of the archive, one line per step.

The order is the promise. The receipt comes first, so that whatever is cut off is seen. Then the marker: from then on no
worker begins with the evaluation. Then it is waited for the one that had begun before. Only then is anything removed.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from scripts.erase.marker import is_marker, mark
from scripts.erase.receipt import Asked, Kept, Receipt, begin, complete, keys_of, receipt_of, unfinished
from scripts.erase.stock import Item, Stock
from scripts.erase.traces import Traces
from tasks.model.evaluation import Evaluation
from tasks.storage.bucket import Bucket
from worker.clients.errors import ServiceUnavailable

_SWEEPS = 3
_BUSY = "it is being worked on; give the same command again in a minute"


@dataclass(frozen=True, slots=True)
class Place:
    """Where an evaluation may have left something.

    Attributes:
        bucket: the archive.
        stock: the same, with its versions.
        traces: in Redis.
    """

    bucket: Bucket
    stock: Stock
    traces: Traces


@dataclass(frozen=True, slots=True)
class Erased:
    """Everything is gone; the receipt says what it was."""

    kept: Kept


@dataclass(frozen=True, slots=True)
class WouldErase:
    """What would go; nothing was changed."""

    receipt: Receipt


@dataclass(frozen=True, slots=True)
class Refused:
    """Nothing was removed, for this reason."""

    why: str


Ending = Erased | WouldErase | Refused


async def erase_one(evaluation: Evaluation, asked: Asked, place: Place, *, dry_run: bool = False) -> Ending:
    """Erase one evaluation, or go on where a former try was cut off.

    Raises:
        ServiceUnavailable: S3, or the folder, does not do what it was asked.
        StorageError: the same.
        IntegrityError: a receipt is not ours.
    """
    kept = await unfinished(place.bucket, await asyncio.to_thread(keys_of, place.stock, evaluation))
    items = await _to_go(evaluation, place)
    why = await asyncio.to_thread(place.stock.locks, items, bypass_governance=asked.bypass_governance)
    if why:
        return Refused(why)
    if dry_run:
        return WouldErase(kept.receipt if kept else await _receipt(evaluation, asked, place, items))
    if not await place.traces.are_free(evaluation.eval_id):
        return Refused(_BUSY)
    kept = kept or await begin(place.bucket, await _receipt(evaluation, asked, place, items))
    await mark(place.bucket, evaluation, kept)
    if not await place.traces.remove(evaluation.eval_id):
        return Refused(_BUSY)
    why = await _sweep(evaluation, asked, place)
    return Refused(why) if why else Erased(await complete(place.bucket, kept))


async def _to_go(evaluation: Evaluation, place: Place) -> list[Item]:
    """Return everything of an evaluation but the marker, where that is there already."""
    items = await asyncio.to_thread(place.stock.items, evaluation)
    if not is_marker(await place.bucket.read(evaluation.manifest_key)):
        return items
    return [item for item in items if not (item.key == evaluation.manifest_key and item.latest and not item.deletion)]


async def _receipt(evaluation: Evaluation, asked: Asked, place: Place, items: Sequence[Item]) -> Receipt:
    found = await place.bucket.read(evaluation.manifest_key)
    return receipt_of(evaluation, asked, items, None if found is None or is_marker(found) else found.data)


async def _sweep(evaluation: Evaluation, asked: Asked, place: Place) -> str | None:
    """Remove until nothing is left; return why not, where something came that is locked.

    Raises:
        ServiceUnavailable: there is always more.
    """
    bypass = asked.bypass_governance
    for _ in range(_SWEEPS):
        items = await _to_go(evaluation, place)
        if not items:
            await asyncio.to_thread(place.stock.tidy, evaluation)
            return None
        why = await asyncio.to_thread(place.stock.locks, items, bypass_governance=bypass)
        if why:
            return why
        await asyncio.to_thread(place.stock.remove, items, bypass_governance=bypass)
    raise ServiceUnavailable(
        f"{evaluation.eval_id}: something goes on writing to it; give the same command again later"
    )
