"""List the bundles in quarantine, from their keys and the manifests of their evaluations."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass

from scripts.archive_access.evaluation_rows import MISSING
from tasks.errors import BadEvalId, IntegrityError
from tasks.model.evaluation import Evaluation, parse_eval_id
from tasks.model.outcome import ManifestOutcome
from tasks.storage.bucket import Bucket, ListedObject
from tasks.storage.manifest import Manifest, read_manifest

_AT_ONCE = 32
_PARTS = 4
_SETTLED = frozenset({ManifestOutcome.ARCHIVED, ManifestOutcome.DISPOSED, ManifestOutcome.ERASED})


@dataclass(frozen=True, slots=True)
class QuarantinedBundle:
    """A bundle in quarantine.

    Attributes:
        eval_id: its evaluation.
        sha256: hash of its bytes before they were sealed.
        size: bytes of the object.
        quarantined_at: when it was written, in seconds since 1970.
        outcome: outcome in the manifest; ``missing`` if none can be read.
        causes: why the bundle or its members could not be read; only for the last bundle that RiskOS sent.
        run: name of the run that the evaluation was archived with, or None.
        sealed_with: ID of the key that the object is sealed with; None if it is not, or no manifest says so.
    """

    eval_id: str
    sha256: str
    size: int
    quarantined_at: float
    outcome: str
    causes: tuple[str, ...] = ()
    run: str | None = None
    sealed_with: str | None = None

    @property
    def reference(self) -> str:
        """Its unique name in the environment."""
        return f"{self.eval_id}/{self.sha256}"

    @property
    def needs_work(self) -> bool:
        """Whether the outcome of its evaluation still depends on it."""
        return self.outcome not in _SETTLED


def quarantine_prefix(environment: str, eval_id: str = "") -> str:
    """Return the prefix of the keys of all bundles in quarantine, or of those of one evaluation."""
    return f"quarantine/{environment}/{eval_id}/" if eval_id else f"quarantine/{environment}/"


async def list_quarantine(
    bucket: Bucket, environment: str, eval_ids: Sequence[str] | None = None
) -> AsyncGenerator[list[QuarantinedBundle], None]:
    """Yield the bundles in quarantine, or those of some evaluations, in pages ordered by key.

    Raises:
        StorageError: the archive does not answer.
    """
    for prefix in (quarantine_prefix(environment, each) for each in eval_ids or ("",)):
        async with contextlib.aclosing(bucket.list_objects(prefix)) as listing:
            async for some in listing:
                yield await _read_some(bucket, environment, some)


async def read_quarantine_page(
    bucket: Bucket, environment: str, *, after: str, count: int
) -> tuple[list[QuarantinedBundle], bool]:
    """Return some bundles in the order of their keys, and whether more follow; raises as ``list_quarantine``.

    Args:
        after: ``reference`` of the bundle before these; empty for the first ones.
    """
    prefix, listed = quarantine_prefix(environment), list[ListedObject]()
    async with contextlib.aclosing(bucket.list_objects(prefix, f"{prefix}{after}.zip" if after else "")) as listing:
        async for some in listing:
            listed += (each for each in some if _parse_key(each.key))
            if len(listed) > count:
                break
    return await _read_some(bucket, environment, listed[:count]), len(listed) > count


async def find_quarantined(bucket: Bucket, environment: str) -> set[str]:
    """Return the evaluations that have a bundle in quarantine; raises as ``list_quarantine``."""
    async with contextlib.aclosing(bucket.list_objects(quarantine_prefix(environment))) as listing:
        return {parsed[0] async for some in listing for each in some if (parsed := _parse_key(each.key))}


async def _read_some(bucket: Bucket, environment: str, some: Sequence[ListedObject]) -> list[QuarantinedBundle]:
    bundles = [(each, *parsed) for each in some if (parsed := _parse_key(each.key))]
    eval_ids = list(dict.fromkeys(eval_id for _, eval_id, _ in bundles))
    at_once = asyncio.Semaphore(_AT_ONCE)

    async def read(eval_id: str) -> Manifest | None:
        async with at_once:
            with contextlib.suppress(IntegrityError):
                found = await read_manifest(bucket, Evaluation(eval_id, environment))
                return found.manifest if found else None
        return None

    manifests = dict(zip(eval_ids, await asyncio.gather(*map(read, eval_ids)), strict=True))
    return [_make_row(listed, eval_id, sha256, manifests[eval_id]) for listed, eval_id, sha256 in bundles]


def _parse_key(key: str) -> tuple[str, str] | None:
    """Return the ID and the hash in a bundle's key; None for other keys."""
    parts = key.split("/")
    with contextlib.suppress(BadEvalId):
        if len(parts) == _PARTS and parts[3].endswith(".zip") and parse_eval_id(parts[2]) == parts[2]:
            return parts[2], parts[3].removesuffix(".zip")
    return None


def _make_row(listed: ListedObject, eval_id: str, sha256: str, manifest: Manifest | None) -> QuarantinedBundle:
    facts = eval_id, sha256, listed.size, listed.modified
    if manifest is None:
        return QuarantinedBundle(*facts, outcome=MISSING)
    record = next((each for each in manifest.quarantined_bundles if each.sha256 == sha256), None)
    is_last = manifest.bundle is not None and manifest.bundle.sha256 == sha256
    causes = dict.fromkeys(each.cause for each in manifest.unreadable) if is_last else ()
    return QuarantinedBundle(
        *facts,
        outcome=manifest.manifest_outcome.value,
        causes=tuple(causes),
        run=manifest.trigger.run,
        sealed_with=record.sealed_with if record else None,
    )
