"""Compare one object with what a manifest claims of it."""

from scripts.verify.context import VerifyContext, VerifyDepth
from scripts.verify.expected_objects import ExpectedObject
from scripts.verify.objects_api import ListedObject, ObjectHead
from scripts.verify.problems import Difference, Problem
from tasks.errors import IntegrityError, SealingKeyMissing, StorageError

_SMALL = 1 << 20
Faults = list[tuple[Problem, str]]


async def check_object(
    ctx: VerifyContext, eval_id: str, expected: ExpectedObject, listed: ListedObject | None
) -> list[Difference]:
    """Return what is not as it is claimed.

    Args:
        listed: the object as it was listed; None where it was not.
    """
    try:
        faults = await _find_faults(ctx, expected, listed)
    except (StorageError, SealingKeyMissing) as error:
        faults = [(Problem.NOT_READ, str(error))]
    except IntegrityError as error:
        faults = [(Problem.CONTENT_DIFFERS, str(error))]
    return [Difference(eval_id, expected.key, problem, detail) for problem, detail in faults]


async def _find_faults(ctx: VerifyContext, expected: ExpectedObject, listed: ListedObject | None) -> Faults:
    if listed is None:
        return [(Problem.OBJECT_MISSING, "a manifest names it")]
    if listed.size != expected.size_there:
        return [(Problem.SIZE_DIFFERS, f"{expected.size_there} bytes are to be there, and {listed.size} are")]
    if ctx.depth is VerifyDepth.SIZES:
        return []
    # One request reads the bytes and the attributes of a plain object that fits into memory.
    small = expected.sealed_with is None and expected.size <= _SMALL
    request = ctx.lister.get if small and ctx.depth is VerifyDepth.CONTENT else ctx.lister.head
    async with ctx.read_limit:
        kept = await request(expected.key)
        return await _check_content(ctx, expected, kept) + (_check_attributes(ctx, expected, kept) if kept else [])


async def _check_content(ctx: VerifyContext, expected: ExpectedObject, head: ObjectHead | None) -> Faults:
    found = head.content if head else None
    if head and ctx.depth is VerifyDepth.CHECKSUMS and expected.sealed_with is None:
        # S3's checksum is that of the bytes as they are there.
        found = head.sha256
    elif found is not None:
        ctx.progress.size += expected.size
    if found is None:
        found = await ctx.bucket.digest(expected.key)
        ctx.progress.size += expected.size
    if found is None:
        return [(Problem.OBJECT_MISSING, "it was listed, and is not there any more")]
    return [] if found == expected.sha256 else [(Problem.CONTENT_DIFFERS, f"its SHA-256 is {found}")]


def _check_attributes(ctx: VerifyContext, expected: ExpectedObject, head: ObjectHead) -> Faults:
    faults: Faults = []
    for name, wanted in expected.metadata.items():
        if head.metadata.get(name) != wanted:
            faults.append((Problem.METADATA_DIFFERS, f"{name} is not what the manifest says"))
    for name, allowed in expected.tags.items():
        if head.tags.get(name) not in allowed:
            faults.append((Problem.TAGS_DIFFER, f"{name} is not what the manifest says"))
    if ctx.lock_expected and expected.locked and head.lock != ctx.lock_expected:
        faults.append((Problem.LOCK_DIFFERS, f"{ctx.lock_expected} is expected, and it has {head.lock or 'none'}"))
    return faults
