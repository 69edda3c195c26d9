"""Erase one evaluation from the archive, in an order that survives interruptions; ``kinds`` erases parts of one.

1. Write the receipt, so that an interrupted erasure is found.
2. Put the marker in place of the manifest: no worker starts this evaluation any more.
3. Sweep: remove every object.
4. Wait for as long as a worker that lost its connection to Redis, or was suspended, may still write.
5. Sweep again, and complete the receipt.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from scripts.erase.duties import Duty, RetentionDuties, Waiting, defer
from scripts.erase.marker import is_marker, parse_manifest, replace_with_marker
from scripts.erase.matters import UnderLegalHold, check_manifest, check_matters
from scripts.erase.presence import Presence, find_presences
from scripts.erase.receipt import (
    ErasureRequest,
    Receipt,
    StoredReceipt,
    begin,
    begin_waiting,
    complete,
    find_unfinished,
    list_receipt_keys,
    make_receipt,
    select_unnamed,
)
from scripts.erase.stock import ObjectVersion, ObjectVersions
from scripts.erase.traces import RedisRecords
from tasks.model.evaluation import Evaluation
from tasks.storage.bucket import Bucket

SWEEPS = 3
"""Maximum number of sweeps: if each of them finds objects, something keeps writing."""
BUSY = "a worker still has it; its receipt stays open, and `erase --pending` completes it"
"""Why an erasure is not complete if a worker has the evaluation."""
STILL_WRITTEN = "something keeps writing to it; its receipt stays open, and `erase --pending` completes it"
"""Why an erasure is not complete if every sweep found something."""
_ABSENT = (
    "nothing of it is in the archive, in the ledger or in the list of a run: check the ID, DOCV_ARCHIVE_URL and its "
    "prefix; --even-if-absent makes sure that it is never archived"
)


@dataclass(frozen=True, slots=True)
class ErasureStores:
    """The stores that may hold objects or records of an evaluation.

    Attributes:
        bucket: the archive.
        versions: the same archive, with all versions of its objects.
        redis_records: the records in Redis.
        tags: the user's own tags, for the marker.
        lists: keys of the pieces of run lists, and of additions to matters, that name an evaluation, by its ID.
        duties: finds duties to keep an evaluation; None without a retention schedule.
    """

    bucket: Bucket
    versions: ObjectVersions
    redis_records: RedisRecords
    tags: Mapping[str, str] = field(default_factory=dict)
    lists: Mapping[str, Sequence[str]] = field(default_factory=dict)
    duties: RetentionDuties | None = None


@dataclass(frozen=True, slots=True)
class Erased:
    """Everything of one environment is removed, as the receipt describes.

    Attributes:
        receipt: the completed receipt.
        elsewhere: a sentence about what remains in the other environment, or None.
    """

    receipt: StoredReceipt
    elsewhere: str | None = None


@dataclass(frozen=True, slots=True)
class WouldErase:
    """The result of a dry run: nothing was changed.

    Attributes:
        receipt: the receipt that an erasure would write.
        why: a sentence that says why the evaluation would not be erased; None if it would be.
    """

    receipt: Receipt
    why: str | None = None


@dataclass(frozen=True, slots=True)
class ErasureRefused:
    """Nothing was removed, for this reason."""

    why: str


@dataclass(frozen=True, slots=True)
class NotFound:
    """The evaluation was not found, so neither marker nor receipt was written.

    Attributes:
        why: the places that were searched, or the environment that has the evaluation.
    """

    why: str


ErasureResult = Erased | WouldErase | ErasureRefused | NotFound | Waiting


@dataclass(frozen=True, slots=True)
class BegunErasure:
    """An erasure after the first sweep: no worker starts any more, but one that started before may still write.

    Attributes:
        evaluation: the evaluation.
        request: the operator's request.
        receipts: all open receipts of the same request.
        late: removed versions that did not exist when the receipts were begun.
        elsewhere: a sentence about what remains in the other environment, or None.
        of_kinds: open receipts for documents of some kinds, which an erasure of the whole evaluation completes, too.
    """

    evaluation: Evaluation
    request: ErasureRequest
    receipts: tuple[StoredReceipt, ...]
    late: Sequence[ObjectVersion] = ()
    elsewhere: str | None = None
    of_kinds: tuple[StoredReceipt, ...] = ()


async def erase_one(
    evaluation: Evaluation, request: ErasureRequest, stores: ErasureStores, *, dry_run: bool = False
) -> ErasureResult:
    """Erase one evaluation that no worker can be writing to, or resume an interrupted erasure.

    Raises:
        ServiceUnavailable: S3, or the folder, refuses or fails.
        StorageError: the same.
        IntegrityError: a receipt is damaged.
    """
    begun = await begin_erasure(evaluation, request, stores, dry_run=dry_run)
    if not isinstance(begun, BegunErasure):
        return begun
    mentions = await stores.redis_records.remove_mentions([evaluation.eval_id])
    return await finish_erasure(begun, stores, mentions[evaluation.eval_id])


async def begin_erasure(
    evaluation: Evaluation, request: ErasureRequest, stores: ErasureStores, *, dry_run: bool = False
) -> BegunErasure | WouldErase | ErasureRefused | NotFound | Waiting:
    """Set the marker and make the first sweep, or resume an interrupted erasure; raises as ``erase_one``."""
    try:
        return await _begin(evaluation, request, stores, dry_run=dry_run)
    except UnderLegalHold as held:
        return ErasureRefused(str(held))


async def _begin(
    evaluation: Evaluation, request: ErasureRequest, stores: ErasureStores, *, dry_run: bool
) -> BegunErasure | WouldErase | ErasureRefused | NotFound | Waiting:
    keys = await asyncio.to_thread(list_receipt_keys, stores.versions, evaluation)
    unfinished = await find_unfinished(stores.bucket, keys)
    of_kinds = tuple(each for each in unfinished if each.receipt.kinds)
    receipts = [each for each in unfinished if not each.receipt.kinds]
    here, elsewhere = await find_presence(evaluation, stores)
    is_here = here.is_found or bool(receipts) or request.even_if_absent
    if not is_here and (elsewhere.is_found or not dry_run):
        return NotFound(describe_elsewhere(elsewhere) if elsewhere.is_found else _ABSENT)
    if obstacle := await _find_obstacle(evaluation, request, stores, here.items, receipts, dry_run=dry_run):
        return obstacle
    is_new = not receipts
    if is_new or any(each.receipt.is_waiting for each in receipts):
        receipt = await _make_receipt(evaluation, request, stores, here.items)
        if dry_run:
            return WouldErase(receipt, None if is_here else _ABSENT)
        receipts = [await begin_waiting(stores.bucket, each, receipt) for each in receipts]
        receipts = receipts or [await begin(stores.bucket, receipt)]
    if dry_run:
        return WouldErase(receipts[0].receipt)
    removed = await _mark_and_sweep(evaluation, request, stores, receipts)
    if isinstance(removed, ErasureRefused | Waiting):
        return removed
    late = [] if is_new else select_unnamed(receipts, removed)
    remains = describe_elsewhere(elsewhere) if elsewhere.must_go else None
    return BegunErasure(evaluation, request, tuple(receipts), late, remains, of_kinds)


async def finish_erasure(
    begun: BegunErasure, stores: ErasureStores, mentions: Sequence[str] = ()
) -> Erased | ErasureRefused:
    """Sweep again after the wait, and complete the receipts; raises as ``erase_one``.

    Args:
        mentions: places outside the archive where the ID may remain.
    """
    evaluation = begun.evaluation
    if not await stores.redis_records.remove(evaluation, wait=True):
        return ErasureRefused(BUSY)
    late = [*begun.late]
    for _ in range(SWEEPS):
        if duty := await _find_duty(evaluation, stores):
            # An order with --even-if-erased has archived it again meanwhile.
            return ErasureRefused(duty.refusal())
        try:
            items = await _list_items_to_remove(evaluation, stores)
        except UnderLegalHold as held:
            return ErasureRefused(str(held))
        if not items:
            break
        if why := await find_lock(items, begun.request, stores):
            return ErasureRefused(why)
        await remove_versions(items, begun.request, stores)
        late += items
    else:
        return ErasureRefused(STILL_WRITTEN)
    await asyncio.to_thread(stores.versions.tidy, evaluation)
    for kept in begun.of_kinds:
        await complete(stores.bucket, kept)
    remaining = (*stores.lists.get(evaluation.eval_id, ()), *mentions)
    done = [await complete(stores.bucket, kept, late, remaining) for kept in begun.receipts]
    return Erased(done[-1], begun.elsewhere)


async def _find_duty(evaluation: Evaluation, stores: ErasureStores) -> Duty | None:
    return await stores.duties.find(stores.bucket, evaluation) if stores.duties else None


async def _find_obstacle(
    evaluation: Evaluation,
    request: ErasureRequest,
    stores: ErasureStores,
    items: Sequence[ObjectVersion],
    receipts: Sequence[StoredReceipt],
    *,
    dry_run: bool,
) -> ErasureRefused | Waiting | None:
    """Return why an erasure cannot begin, or None; a request that may wait is recorded."""
    if duty := await _find_duty(evaluation, stores):
        return await _refuse_or_defer(duty, evaluation, request, stores, receipts, dry_run=dry_run)
    if items:
        # Checked before locks, because a matter explains the legal hold that S3 has on each object.
        await check_matters(stores.bucket, evaluation)
    why = await find_lock(items, request, stores)
    return ErasureRefused(why) if why else None


async def _refuse_or_defer(
    duty: Duty,
    evaluation: Evaluation,
    request: ErasureRequest,
    stores: ErasureStores,
    receipts: Sequence[StoredReceipt],
    *,
    dry_run: bool = False,
) -> ErasureRefused | Waiting:
    """Refuse a request that a duty blocks, or record it if it may wait."""
    if not request.when_allowed:
        return ErasureRefused(duty.refusal())
    now = await stores.redis_records.latest_time()
    return await defer(stores.bucket, evaluation, request, duty, receipts, now, dry_run=dry_run)


async def find_presence(evaluation: Evaluation, stores: ErasureStores) -> tuple[Presence, Presence]:
    """Return where an evaluation is in its own environment, and where in the other one."""
    return await find_presences(
        evaluation,
        stores.bucket,
        stores.versions,
        in_ledger=await stores.redis_records.find_environment(evaluation),
        lists=stores.lists.get(evaluation.eval_id, ()),
    )


def describe_elsewhere(elsewhere: Presence) -> str:
    """Return a sentence about the findings in the other environment, and how to erase them."""
    return (
        f"{elsewhere.sentence()}: run the same command with an --account of that environment, or with "
        f"DOCV_ENVIRONMENT={elsewhere.environment}"
    )


async def _list_items_to_remove(evaluation: Evaluation, stores: ErasureStores) -> list[ObjectVersion]:
    """Return every version of an evaluation's objects, except a marker that is in place.

    Raises:
        UnderLegalHold: it was archived again meanwhile, and is under a legal hold.
    """
    manifest = parse_manifest(await stores.bucket.read(evaluation.manifest_key))
    check_manifest(manifest)
    items = await asyncio.to_thread(stores.versions.items, evaluation)
    if manifest is None or manifest.erased is None:
        return items
    return [item for item in items if not (item.key == evaluation.manifest_key and item.latest and not item.deletion)]


async def _make_receipt(
    evaluation: Evaluation, request: ErasureRequest, stores: ErasureStores, items: Sequence[ObjectVersion]
) -> Receipt:
    found = await stores.bucket.read(evaluation.manifest_key)
    manifest = None if found is None or is_marker(found) else found.data
    return make_receipt(evaluation, request, items, manifest, await stores.redis_records.latest_time())


async def find_lock(items: Sequence[ObjectVersion], request: ErasureRequest, stores: ErasureStores) -> str | None:
    """Return why S3 does not allow a request to remove one of these versions, or None."""
    return await asyncio.to_thread(stores.versions.locks, items, bypass_governance=request.bypass_governance)


async def remove_versions(items: Sequence[ObjectVersion], request: ErasureRequest, stores: ErasureStores) -> None:
    """Remove versions for good."""
    await asyncio.to_thread(stores.versions.remove, items, bypass_governance=request.bypass_governance)


async def _mark_and_sweep(
    evaluation: Evaluation, request: ErasureRequest, stores: ErasureStores, receipts: Sequence[StoredReceipt]
) -> list[ObjectVersion] | ErasureRefused | Waiting:
    """Set the marker and make the first sweep; return the removed versions, or the obstacle."""
    if duty := await replace_with_marker(stores.bucket, evaluation, receipts[-1], stores.tags, stores.duties):
        return await _refuse_or_defer(duty, evaluation, request, stores, receipts)
    await stores.redis_records.remove(evaluation, wait=False)
    items = await _list_items_to_remove(evaluation, stores)
    if why := await find_lock(items, request, stores):
        return ErasureRefused(why)
    await remove_versions(items, request, stores)
    await asyncio.to_thread(stores.versions.tidy, evaluation)
    return items
