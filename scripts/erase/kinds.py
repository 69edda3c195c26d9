"""Erase only the documents of some kinds of one evaluation; the rest of it stays, and can still be archived again.

1. Write the receipt, so that an interrupted erasure is found.
2. Write the next revision of the manifest: it notes the kinds, and lists their documents as disposed. From then on
   workers that read it do not store documents of these kinds.
3. Sweep: remove every object of these kinds, and every object with the bytes of their documents.
4. Wait for as long as a worker that read the earlier manifest may still write.
5. Sweep again, and complete the receipt.
"""

import asyncio
from collections.abc import Collection, Sequence

from scripts.archive_access.tombstone import write_tombstone
from scripts.erase.duties import Waiting, defer
from scripts.erase.erasure import (
    BUSY,
    STILL_WRITTEN,
    SWEEPS,
    BegunErasure,
    Erased,
    ErasureRefused,
    ErasureStores,
    NotFound,
    WouldErase,
    describe_elsewhere,
    find_lock,
    find_presence,
    remove_versions,
)
from scripts.erase.matters import UnderLegalHold, check_manifest, check_matters
from scripts.erase.presence import Presence
from scripts.erase.receipt import (
    ErasureRequest,
    StoredReceipt,
    begin,
    begin_waiting,
    complete,
    find_unfinished,
    list_receipt_keys,
    make_receipt,
    select_unnamed,
)
from scripts.erase.stock import ObjectVersion
from tasks.model.evaluation import Evaluation
from tasks.storage.manifest import Manifest, read_manifest, utc_now
from tasks.storage.manifest_records import ErasedKindRecord
from tasks.storage.revision import amend, complete_tags

_TRIES = 3
_WHOLE_IS_OPEN = "an erasure of the whole evaluation is open, and `erase --pending` completes it"
_ERASED = "the whole evaluation was erased, see {}"
_QUARANTINED = (
    "one of its bundles is in quarantine and may hold such documents: "
    "erase the whole evaluation, or see `quarantine list`"
)
_CHANGED = "a worker archived more such documents meanwhile; its receipt stays open, and `erase --pending` completes it"
_KEEPS_CHANGING = "workers keep changing its manifest; its receipt stays open, and `erase --pending` completes it"


class KindsRefused(Exception):
    """Documents of some kinds cannot be erased; the sentence says why."""


async def begin_kinds(
    evaluation: Evaluation, request: ErasureRequest, stores: ErasureStores, *, dry_run: bool = False
) -> BegunErasure | WouldErase | ErasureRefused | NotFound | Waiting:
    """Note the kinds in the manifest and make the first sweep, or resume an interrupted erasure.

    Raises:
        ServiceUnavailable: S3, or the folder, refuses or fails.
        StorageError: the same.
        IntegrityError: a receipt or the manifest is damaged.
        ManifestChanged: the manifest changed during every try.
    """
    try:
        return await _begin(evaluation, request, stores, dry_run=dry_run)
    except (UnderLegalHold, KindsRefused) as refused:
        return ErasureRefused(str(refused))


async def finish_kinds(begun: BegunErasure, stores: ErasureStores) -> Erased | ErasureRefused:
    """Sweep again after the wait, and complete the receipts; raises as ``begin_kinds``."""
    evaluation = begun.evaluation
    # A worker that has the evaluation may have read the manifest before it was changed.
    if not await stores.redis_records.is_idle(evaluation):
        return ErasureRefused(BUSY)
    late = [*begun.late]
    try:
        for _ in range(SWEEPS):
            found = await read_manifest(stores.bucket, evaluation)
            _check(found.manifest if found else None, begun.request.kinds)
            items = await _list_items(evaluation, found.manifest if found else None, stores)
            if not items:
                break
            await _remove(items, begun.request, stores)
            late += items
        else:
            return ErasureRefused(STILL_WRITTEN)
    except (UnderLegalHold, KindsRefused) as refused:
        return ErasureRefused(str(refused))
    await asyncio.to_thread(stores.versions.tidy, evaluation)
    done = [await complete(stores.bucket, kept, late) for kept in begun.receipts]
    return Erased(done[-1], begun.elsewhere)


async def _begin(
    evaluation: Evaluation, request: ErasureRequest, stores: ErasureStores, *, dry_run: bool
) -> BegunErasure | WouldErase | ErasureRefused | NotFound | Waiting:
    receipts = await _find_receipts(evaluation, request, stores)
    here, elsewhere = await find_presence(evaluation, stores)
    found = await read_manifest(stores.bucket, evaluation)
    manifest = found.manifest if found else None
    _check(manifest, request.kinds)
    # Once a kind is erased, no bundle is kept. A bundle that is there was left by a worker, and is removed.
    has_erased_kinds = manifest is not None and bool(manifest.erased_kinds)
    if not has_erased_kinds and any(item.key.startswith("quarantine/") for item in here.items):
        raise KindsRefused(_QUARANTINED)
    if here.items and manifest is None:
        await check_matters(stores.bucket, evaluation)
    draft = _note(manifest, request, None) if manifest else None
    items = [item for item in here.items if draft and draft.must_be_gone(item.key)]
    is_here = bool(items or receipts) or request.even_if_absent or _names(manifest, request.kinds)
    if not is_here and not dry_run:
        return NotFound(_describe_absence(request, here, elsewhere))
    duty = await stores.duties.find(stores.bucket, evaluation, request.kinds) if stores.duties else None
    if duty and request.when_allowed:
        now = await stores.redis_records.latest_time()
        return await defer(stores.bucket, evaluation, request, duty, receipts, now, dry_run=dry_run)
    if why := duty.refusal() if duty else await find_lock(items, request, stores):
        return ErasureRefused(why)
    is_new = not receipts
    if is_new or any(each.receipt.is_waiting for each in receipts):
        now = await stores.redis_records.latest_time()
        receipt = make_receipt(evaluation, request, items, None, now)
        if dry_run:
            return WouldErase(receipt, None if is_here else _describe_absence(request, here, elsewhere))
        receipts = [await begin_waiting(stores.bucket, each, receipt) for each in receipts]
        receipts = receipts or [await begin(stores.bucket, receipt)]
    if dry_run:
        return WouldErase(receipts[0].receipt)
    manifest = await _write_note(evaluation, request, receipts[-1], manifest, stores)
    removed = await _list_items(evaluation, manifest, stores)
    await _remove(removed, request, stores)
    late = [] if is_new else select_unnamed(receipts, removed)
    return BegunErasure(
        evaluation, request, tuple(receipts), late, describe_elsewhere(elsewhere) if elsewhere.must_go else None
    )


async def _find_receipts(evaluation: Evaluation, request: ErasureRequest, stores: ErasureStores) -> list[StoredReceipt]:
    """Return the open receipts of requests for the same kinds."""
    keys = await asyncio.to_thread(list_receipt_keys, stores.versions, evaluation)
    unfinished = await find_unfinished(stores.bucket, keys)
    if any(not each.receipt.kinds and not each.receipt.is_waiting for each in unfinished):
        raise KindsRefused(_WHOLE_IS_OPEN)
    return [each for each in unfinished if each.receipt.kinds == request.kinds]


def _check(manifest: Manifest | None, kinds: Collection[str]) -> None:
    """Check that documents of an evaluation may be erased by their kind.

    Raises:
        UnderLegalHold: such documents, or others with the same bytes, are under a matter.
        KindsRefused: it was erased, or one of its bundles is in quarantine.
    """
    others = [each.kind for each in manifest.documents_of(kinds)] if manifest else []
    check_manifest(manifest, {*kinds, *others})
    if manifest and manifest.erased:
        raise KindsRefused(_ERASED.format(manifest.erased.receipt))
    if manifest and manifest.quarantined_bundles:
        raise KindsRefused(_QUARANTINED)


def _names(manifest: Manifest | None, kinds: Collection[str]) -> bool:
    """Return whether a manifest lists documents of some kinds, or notes that one of them was erased."""
    if manifest is None:
        return False
    return bool(manifest.documents_of(kinds)) or any(each.kind in kinds for each in manifest.erased_kinds)


def _describe_absence(request: ErasureRequest, here: Presence, elsewhere: Presence) -> str:
    if elsewhere.is_found and not here.items:
        return describe_elsewhere(elsewhere)
    return (
        f"the archive has none of its documents of the kind {' or '.join(request.kinds)}; "
        "--even-if-absent makes sure that none is ever archived"
    )


def _note(manifest: Manifest, request: ErasureRequest, receipt: StoredReceipt | None) -> Manifest:
    """Return a manifest that notes the kinds, and lists their documents as disposed.

    Args:
        receipt: the receipt; None to find out which objects have to be removed.
    """
    now, key = utc_now(), receipt.key if receipt else ""
    at = receipt.receipt.erased_at if receipt else now
    known = {each.kind for each in manifest.erased_kinds}
    new = [ErasedKindRecord(kind=each, receipt=key, at=at) for each in request.kinds if each not in known]
    records = {each.kind: each for each in (*manifest.erased_kinds, *new)}
    going = manifest.documents_of(records.keys())
    by_hash = {each.sha256: records[each.kind] for each in going if each.kind in records}
    disposed = {
        each.key: by_hash[each.sha256].list_disposed(
            each, each.key, now, archived_at=each.archived_at or manifest.archived_at, receipt=key
        )
        for each in going
    }
    return manifest.model_copy(
        update={
            "erased_kinds": tuple(records.values()),
            "documents": tuple(each for each in manifest.documents if each.sha256 not in by_hash),
            "disposed": (*manifest.disposed, *disposed.values()),
        }
    )


async def _write_note(
    evaluation: Evaluation,
    request: ErasureRequest,
    receipt: StoredReceipt,
    before: Manifest | None,
    stores: ErasureStores,
) -> Manifest:
    """Write the manifest that notes the kinds; return it."""
    decided = {each.sha256 for each in before.documents_of(request.kinds)} if before else set()

    def change(manifest: Manifest) -> Manifest | None:
        _check(manifest, request.kinds)
        noted = _note(manifest, request, receipt)
        # The duties were found for the documents of the manifest that was read first.
        if stores.duties and {each.sha256 for each in manifest.documents_of(request.kinds)} - decided:
            raise KindsRefused(_CHANGED)
        is_noted = (noted.erased_kinds, noted.documents) == (manifest.erased_kinds, manifest.documents)
        return None if is_noted else noted

    for _ in range(_TRIES):
        manifest = await amend(stores.bucket, evaluation, change, stores.tags)
        if manifest:
            # An interrupted command may have written the manifest without its tags.
            await complete_tags(stores.bucket, evaluation, manifest, stores.tags)
            return manifest
        await write_tombstone(
            stores.bucket, evaluation, "erase", stores.tags, lambda made: _note(made, request, receipt)
        )
    raise KindsRefused(_KEEPS_CHANGING)


async def _list_items(evaluation: Evaluation, manifest: Manifest | None, stores: ErasureStores) -> list[ObjectVersion]:
    """Return every version of objects that must not exist any more."""
    items = await asyncio.to_thread(stores.versions.items, evaluation)
    return [item for item in items if manifest and manifest.must_be_gone(item.key)]


async def _remove(items: Sequence[ObjectVersion], request: ErasureRequest, stores: ErasureStores) -> None:
    if why := await find_lock(items, request, stores):
        raise KindsRefused(why)
    await remove_versions(items, request, stores)
