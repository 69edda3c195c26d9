"""Check the list of one run: its description, its pieces, and that they hold the IDs it was made from."""

import hashlib
from collections.abc import Sequence
from uuid import UUID

from scripts.verify.context import VerifyContext
from scripts.verify.layout import ArchivePlace, ObjectGroup
from scripts.verify.problems import Difference, Problem
from tasks.errors import IntegrityError, StorageError
from tasks.storage.bucket import ListedObject
from tasks.storage.run_list import RunList, read_chunk, read_run_list

_LARGEST = 64 << 20


async def check_run(ctx: VerifyContext, group: ObjectGroup) -> list[Difference]:
    """Return the differences."""
    ctx.progress.runs += 1
    found = await _find_differences(ctx, group.place, group.objects or ())
    # It may have been listed before it was complete.
    return await _find_differences(ctx, group.place, await ctx.objects(group.place.prefix)) if found else []


async def _find_differences(
    ctx: VerifyContext, place: ArchivePlace, objects: Sequence[ListedObject]
) -> list[Difference]:
    key = f"{place.prefix}run.json"
    if any(not 0 <= stored.size <= _LARGEST for stored in objects):
        return [_damaged(key, "one of its objects is not a file, or is too large for a run list")]
    try:
        run = await read_run_list(ctx.bucket, place.environment, place.name)
    except (IntegrityError, StorageError) as error:
        return [_damaged(key, str(error))]
    if run is None:
        return ctx.orphans("", objects, "no run list names it")
    if (run.run, run.environment) != (place.name, place.environment):
        return [_damaged(key, "it belongs to another run")]
    named = {key, *(piece.key for piece in run.pieces)}
    unnamed = [stored for stored in objects if stored.key not in named]
    differences = ctx.orphans("", unnamed, "no run list names it")
    outside = [piece for piece in run.pieces if piece.key != f"{place.prefix}{piece.sha256}.txt.gz"]
    if outside:
        detail = "a run list names this key, which is not its run's; it was not read"
        return differences + [Difference("", piece.key, Problem.KEY_OUTSIDE, detail) for piece in outside]
    return differences + await _check_chunks(ctx, run, key)


async def _check_chunks(ctx: VerifyContext, run: RunList, key: str) -> list[Difference]:
    """Read every piece; if all are intact, check that their IDs are those that the run was made from."""
    differences: list[Difference] = []
    digest, count = hashlib.sha256(), 0
    for piece in run.pieces:
        try:
            eval_ids = await read_chunk(ctx.bucket, piece)
            digest.update(b"".join(UUID(eval_id).bytes for eval_id in eval_ids))
            count += piece.ids
        except (IntegrityError, StorageError) as error:
            differences.append(_damaged(piece.key, str(error)))
    if not differences and (count, digest.hexdigest()) != (run.source.ids, run.source.fingerprint):
        differences.append(_damaged(key, "the IDs in its pieces are not those that the run started with"))
    return differences


def _damaged(key: str, detail: str) -> Difference:
    return Difference("", key, Problem.RUN_DAMAGED, detail)
