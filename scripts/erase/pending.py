"""Complete open erasures, and sweep objects that workers wrote while evaluations were erased."""

from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from scripts.erase.erasure import (
    BegunErasure,
    ErasureRefused,
    ErasureResult,
    ErasureStores,
    NotFound,
    WouldErase,
    erase_one,
)
from scripts.erase.receipt import ErasureRequest, describe_damage, find_all_unfinished
from scripts.erase.steps import EVALUATION_ERRORS, begin_request, finish_request
from scripts.erase.stock import parse_evaluation
from tasks.model.evaluation import Evaluation
from tasks.storage.manifest import read_manifest

_LEFT = "left by a worker that was archiving it while it was erased"


async def begin_pending(
    request: ErasureRequest, stores: ErasureStores, environments: Collection[str], *, dry_run: bool
) -> AsyncIterator[tuple[Evaluation, BegunErasure | ErasureResult]]:
    """Resume every erasure in these environments whose receipt is open; raises as ``erase_one``.

    Deferred requests continue to wait if a duty to keep documents still blocks them. An erasure of the whole
    evaluation completes those of its kinds, too.
    """
    damaged: dict[Evaluation, str] = {}
    unfinished = await find_all_unfinished(stores.bucket, environments, damaged.__setitem__)
    for evaluation, key in damaged.items():
        if evaluation not in unfinished:
            yield evaluation, ErasureRefused(describe_damage(key))
    for evaluation, receipts in unfinished.items():
        for kinds in sorted({each.kinds for each in receipts}):
            is_deferred = any(each.waits_for for each in receipts if each.kinds == kinds)
            resumed = replace(request, when_allowed=is_deferred, kinds=kinds)
            result = await _resume(evaluation, resumed, stores, dry_run=dry_run)
            yield evaluation, result
            if not kinds and isinstance(result, BegunErasure | WouldErase):
                break


async def _resume(
    evaluation: Evaluation, request: ErasureRequest, stores: ErasureStores, *, dry_run: bool
) -> BegunErasure | ErasureResult:
    try:
        return await begin_request(evaluation, request, stores, dry_run=dry_run)
    except EVALUATION_ERRORS as error:
        return ErasureRefused(str(error))


async def sweep_leftovers(
    request: ErasureRequest, stores: ErasureStores, environments: Collection[str], *, dry_run: bool
) -> AsyncIterator[tuple[Evaluation, ErasureResult]]:
    """Erase evaluations of these environments again whose workers recorded leftovers; raises as ``erase_one``.

    These workers have found the marker, or the erased kinds in the manifest, so they write no more. Without either, the
    evaluation was archived again or never erased, and must not be removed.
    """
    leftovers = _by_evaluation(await stores.redis_records.list_leftovers())
    for evaluation, keys in leftovers.items():
        if evaluation.environment not in environments:
            continue
        try:
            result = await _erase_leftovers(evaluation, request, stores, dry_run=dry_run)
        except EVALUATION_ERRORS as error:
            result = ErasureRefused(str(error))
        if result:
            yield evaluation, result
        if not (dry_run or isinstance(result, ErasureRefused)):
            # A worker may have recorded others meanwhile.
            await stores.redis_records.forget_leftovers(keys)


async def _erase_leftovers(
    evaluation: Evaluation, request: ErasureRequest, stores: ErasureStores, *, dry_run: bool
) -> ErasureResult | None:
    """Erase an evaluation, or its erased kinds, again; return None if nothing of it has to be removed."""
    found = await read_manifest(stores.bucket, evaluation)
    kinds = tuple(sorted(each.kind for each in found.manifest.erased_kinds)) if found else ()
    if found is None or not (found.manifest.erased or kinds):
        return None
    result = await _erase_now(evaluation, replace(request, reason=_LEFT, kinds=kinds), stores, dry_run=dry_run)
    return None if isinstance(result, NotFound) else result


async def _erase_now(
    evaluation: Evaluation, request: ErasureRequest, stores: ErasureStores, *, dry_run: bool
) -> ErasureResult:
    if not request.kinds:
        return await erase_one(evaluation, request, stores, dry_run=dry_run)
    begun = await begin_request(evaluation, request, stores, dry_run=dry_run)
    return await finish_request(begun, stores) if isinstance(begun, BegunErasure) else begun


def _by_evaluation(keys: Iterable[str]) -> Mapping[Evaluation, Sequence[str]]:
    """Return the keys of objects, by their evaluations."""
    found = defaultdict[Evaluation, list[str]](list)
    for key in keys:
        if evaluation := parse_evaluation(key.removeprefix("quarantine/")):
            found[evaluation].append(key)
    return found
