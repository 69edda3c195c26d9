"""Compare one object with its description in a manifest."""

from scripts.verify.context import VerifyContext, VerifyDepth
from scripts.verify.expected_objects import ExpectedObject
from scripts.verify.objects_api import ObjectHead
from scripts.verify.problems import Difference, Problem
from tasks.errors import IntegrityError, SealingKeyMissing, StorageError
from tasks.storage.bucket import ListedObject
from tasks.storage.encrypted_bucket import EncryptedBucket

_SMALL = 1 << 20
Faults = list[tuple[Problem, str]]


async def check_object(
    ctx: VerifyContext, eval_id: str, expected: ExpectedObject, listed: ListedObject | None
) -> list[Difference]:
    """Return the differences between an object and its description.

    Args:
        listed: the object in the listing; None if it is not there.
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
        return [(Problem.OBJECT_MISSING, "a manifest lists it")]
    if listed.size != expected.stored_size:
        return [(Problem.SIZE_DIFFERS, f"expected {expected.stored_size} bytes, found {listed.size}")]
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
        # S3's checksum is that of the stored bytes, sealed or not.
        found = head.sha256
    elif found is not None:
        ctx.progress.size += expected.size
    faults: Faults = []
    if expected.sealed_with and isinstance(ctx.bucket, EncryptedBucket):
        examined = await ctx.bucket.examine(expected.key)
        found, key_id = examined or (None, expected.sealed_with)
        if key_id != expected.sealed_with:
            key_text = f"the key {key_id}" if key_id else "no key"
            faults = [
                (Problem.SEALING_DIFFERS, f"it is sealed with {key_text}, but its manifest says {expected.sealed_with}")
            ]
        ctx.progress.size += expected.size
    elif found is None:
        found = await ctx.bucket.digest(expected.key)
        ctx.progress.size += expected.size
    if found is None:
        return [(Problem.OBJECT_MISSING, "it was listed, but no longer exists")]
    return faults if found == expected.sha256 else [*faults, (Problem.CONTENT_DIFFERS, f"its SHA-256 is {found}")]


def _check_attributes(ctx: VerifyContext, expected: ExpectedObject, head: ObjectHead) -> Faults:
    faults: Faults = []
    for name, wanted in expected.metadata.items():
        if head.metadata.get(name) != wanted:
            faults.append((Problem.METADATA_DIFFERS, f"{name} does not match the manifest"))
    for name, allowed in expected.tags.items():
        if head.tags.get(name) not in allowed:
            faults.append((Problem.TAGS_DIFFER, f"{name} does not match the manifest"))
    is_lock_due = head.lock is not None or not ctx.has_schedule
    if ctx.lock_expected and expected.locked and is_lock_due and head.lock != ctx.lock_expected:
        faults.append((Problem.LOCK_DIFFERS, f"expected {ctx.lock_expected}, found {head.lock or 'no lock'}"))
    return faults
