"""Complete open erasures, and sweep objects that workers wrote while evaluations were erased."""

import asyncio
from collections.abc import AsyncIterator, Collection, Iterable
from dataclasses import replace

from scripts.erase.erasure import BegunErasure, ErasureRefused, ErasureResult, ErasureStores, WouldErase, erase_one
from scripts.erase.marker import parse_manifest
from scripts.erase.receipt import RECEIPTS, ErasureRequest, find_unfinished
from scripts.erase.steps import begin_request, finish_request
from tasks.errors import BadEvalId, IntegrityError
from tasks.model.evaluation import ENVIRONMENTS, Evaluation, parse_eval_id

_LEFT = "left by a worker that was archiving it while it was erased"


async def begin_pending(
    request: ErasureRequest, stores: ErasureStores, environments: Collection[str], *, dry_run: bool
) -> AsyncIterator[tuple[Evaluation, BegunErasure | ErasureResult]]:
    """Resume every erasure in these environments whose receipt is open; raises as ``erase_one``.

    Deferred requests go on waiting if a duty to keep documents still stands against them. An erasure of the whole
    evaluation completes those of its kinds, too.
    """
    for environment in environments:
        keys = await asyncio.to_thread(stores.versions.keys, f"{RECEIPTS}{environment}/")
        unfinished = await find_unfinished(stores.bucket, keys)
        for evaluation in _parse_evaluations(each.key.removeprefix(RECEIPTS) for each in unfinished):
            receipts = [each.receipt for each in unfinished if evaluation.eval_id in each.key]
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
    except IntegrityError as error:
        return ErasureRefused(str(error))


async def sweep_leftovers(
    request: ErasureRequest, stores: ErasureStores, environments: Collection[str], *, dry_run: bool
) -> AsyncIterator[tuple[Evaluation, ErasureResult]]:
    """Erase evaluations of these environments again whose workers recorded leftovers; raises as ``erase_one``.

    These workers have seen the marker, or the erased kinds in the manifest, so they write no more. Without either, the
    evaluation was archived again or never erased, and must not be removed.
    """
    leftovers = await stores.redis_records.list_leftovers()
    for evaluation in _parse_evaluations(key.removeprefix("quarantine/") for key in leftovers):
        if evaluation.environment not in environments:
            continue
        manifest = parse_manifest(await stores.bucket.read(evaluation.manifest_key))
        kinds = tuple(sorted(each.kind for each in manifest.erased_kinds)) if manifest else ()
        if manifest and (manifest.erased or kinds):
            swept = replace(request, reason=_LEFT, kinds=kinds)
            yield evaluation, await _erase_now(evaluation, swept, stores, dry_run=dry_run)
        if not dry_run:
            await stores.redis_records.forget_leftovers(evaluation)


async def _erase_now(
    evaluation: Evaluation, request: ErasureRequest, stores: ErasureStores, *, dry_run: bool
) -> ErasureResult:
    if not request.kinds:
        return await erase_one(evaluation, request, stores, dry_run=dry_run)
    begun = await begin_request(evaluation, request, stores, dry_run=dry_run)
    return await finish_request(begun, stores) if isinstance(begun, BegunErasure) else begun


def _parse_evaluations(keys: Iterable[str]) -> list[Evaluation]:
    """Return the evaluations of keys that begin with environment and ID, each once."""
    found: dict[Evaluation, None] = {}
    for key in keys:
        environment, _, rest = key.partition("/")
        try:
            eval_id = parse_eval_id(rest.partition("/")[0])
        except BadEvalId:
            continue
        if environment in ENVIRONMENTS:
            found[Evaluation(eval_id, environment)] = None
    return list(found)
