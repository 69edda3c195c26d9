"""Compare one object with what a manifest claims of it."""

from scripts.verify.context import Depth, VerifyContext
from scripts.verify.expected_objects import ExpectedObject
from scripts.verify.objects_api import ListedObject, ObjectHead
from scripts.verify.problems import Difference, Problem
from tasks.errors import IntegrityError, SealingKeyMissing, StorageError

_SMALL = 1 << 20
Faults = list[tuple[Problem, str]]


async def check_object(
    means: VerifyContext, eval_id: str, claim: ExpectedObject, stored: ListedObject | None
) -> list[Difference]:
    """Return what is not as it is claimed.

    Args:
        stored: the object as it was listed; None where it was not.
    """
    try:
        faults = await _faults(means, claim, stored)
    except (StorageError, SealingKeyMissing) as error:
        faults = [(Problem.NOT_READ, str(error))]
    except IntegrityError as error:
        faults = [(Problem.CONTENT_DIFFERS, str(error))]
    return [Difference(eval_id, claim.key, problem, detail) for problem, detail in faults]


async def _faults(means: VerifyContext, claim: ExpectedObject, stored: ListedObject | None) -> Faults:
    if stored is None:
        return [(Problem.OBJECT_MISSING, "a manifest names it")]
    if stored.size != claim.size_there:
        return [(Problem.SIZE_DIFFERS, f"{claim.size_there} bytes are to be there, and {stored.size} are")]
    if means.depth is Depth.SIZES:
        return []
    async with means.reading:
        kept = await (means.shelves.read_back if _in_one(means, claim) else means.shelves.kept)(claim.key)
        return await _content(means, claim, kept) + (_labels(means, claim, kept) if kept else [])


def _in_one(means: VerifyContext, claim: ExpectedObject) -> bool:
    """Whether an object is read with what is kept beside it: it is to be read, as it is, and fits into memory."""
    return means.depth is Depth.CONTENT and claim.sealed_with is None and claim.size <= _SMALL


async def _content(means: VerifyContext, claim: ExpectedObject, kept: ObjectHead | None) -> Faults:
    found = kept.content if kept else None
    if kept and means.depth is Depth.CHECKSUMS and claim.sealed_with is None:
        # S3's checksum is that of the bytes as they are there.
        found = kept.sha256
    elif found is not None:
        means.tally.size += claim.size
    if found is None:
        found = await means.bucket.digest(claim.key)
        means.tally.size += claim.size
    if found is None:
        return [(Problem.OBJECT_MISSING, "it was listed, and is not there any more")]
    return [] if found == claim.sha256 else [(Problem.CONTENT_DIFFERS, f"its SHA-256 is {found}")]


def _labels(means: VerifyContext, claim: ExpectedObject, kept: ObjectHead) -> Faults:
    faults: Faults = []
    for name, wanted in claim.metadata.items():
        if kept.metadata.get(name) != wanted:
            faults.append((Problem.METADATA_DIFFERS, f"{name} is not what the manifest says"))
    for name, allowed in claim.tags.items():
        if kept.tags.get(name) not in allowed:
            faults.append((Problem.TAGS_DIFFER, f"{name} is not what the manifest says"))
    if means.lock_expected and claim.locked and kept.lock != means.lock_expected:
        faults.append((Problem.LOCK_DIFFERS, f"{means.lock_expected} is expected, and it has {kept.lock or 'none'}"))
    return faults
