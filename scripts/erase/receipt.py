"""The receipt of an erasure: operator, time, reason, and counts and hashes of the removed objects.

    receipts/{environment}/{eval_id}/{time}.json

A receipt is written before anything is removed; ``completed_at`` is set at the end. So an interrupted erasure is found,
and the same command or ``erase --pending`` completes it. The receipt of a deferred request waits for the end of a duty
to keep documents; its counts are set when the removal begins.
"""

import asyncio
import hashlib
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from scripts.erase.stock import ObjectVersion, ObjectVersions, parse_evaluation
from tasks.errors import IntegrityError, ManifestChanged
from tasks.model.evaluation import Evaluation
from tasks.storage.bucket import Bucket, ObjectAttributes, StoredObject, WriteUnconfirmed, put
from tasks.storage.manifest import archiver, format_utc, utc_now

RECEIPTS = "receipts/"
"""Prefix of the keys of all receipts."""
_LABELS = ObjectAttributes("application/json")
_AT_ONCE = 16
_NAMED_BY_CONTENT = re.compile(r"/([0-9a-f]{64})\.[a-z0-9]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class ErasureRequest:
    """An operator's request to erase evaluations.

    Attributes:
        reason: why, in the operator's words.
        by: the operator's name.
        host: the machine on which the command ran.
        bypass_governance: whether to remove versions under a GOVERNANCE retention, too.
        even_if_absent: whether to write marker and receipt even if nothing of the evaluation is found.
        when_allowed: whether the request waits while a duty to keep documents blocks it.
        kinds: kinds of the documents to erase, sorted; empty to erase whole evaluations.
    """

    reason: str
    by: str
    host: str
    bypass_governance: bool = False
    even_if_absent: bool = False
    when_allowed: bool = False
    kinds: tuple[str, ...] = ()


class Receipt(BaseModel):
    """The receipt of one erasure; it contains no file name from a bundle."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)

    schema_: Literal[1] = Field(alias="schema", description="Version of this format.")
    eval_id: str
    environment: str
    by: str
    host: str
    reason: str
    kinds: tuple[str, ...] = Field(
        default=(), description="Kinds of the documents that were erased; empty if the whole evaluation was."
    )
    objects: int = Field(default=0, ge=0, description="Objects that were there.")
    versions: int = Field(default=0, ge=0, description="Their versions and delete markers.")
    size: int = Field(default=0, ge=0, description="Bytes of all versions.")
    documents: tuple[str, ...] = Field(
        default=(), description="SHA-256 of each document, and of each bundle in quarantine."
    )
    manifest: str | None = Field(default=None, description="SHA-256 of the manifest, or null.")
    remaining: tuple[str, ...] = Field(default=(), description="Places where the bare ID may remain.")
    requested_at: str
    waits_for: tuple[str, ...] = Field(
        default=(), description="Rules that prevented the erasure, so the request was deferred."
    )
    not_before: date | None = Field(
        default=None, description="Day on which they were going to end, as known at the time of the request."
    )
    begun_at: str | None = Field(default=None, description="When the removal of a deferred request began, or null.")
    completed_at: str | None = None
    archiver: str

    @property
    def is_waiting(self) -> bool:
        """Whether the request is deferred, and its removal has not begun."""
        return bool(self.waits_for) and self.begun_at is None

    @property
    def erased_at(self) -> str:
        """The time of the erasure: earlier orders never archive the evaluation again."""
        return self.begun_at or self.requested_at

    @classmethod
    def of_request(cls, evaluation: Evaluation, request: ErasureRequest, requested_at: str) -> Self:
        """Return the receipt of a request, without counts."""
        return cls(
            schema=1,
            eval_id=evaluation.eval_id,
            environment=evaluation.environment,
            by=request.by,
            host=request.host,
            reason=request.reason,
            kinds=request.kinds,
            requested_at=requested_at,
            archiver=archiver(),
        )

    def as_json(self) -> bytes:
        """Return the receipt as the JSON that is stored in the archive."""
        return (self.model_dump_json(by_alias=True, indent=1) + "\n").encode()


@dataclass(frozen=True, slots=True)
class StoredReceipt:
    """A receipt and its key in the archive."""

    key: str
    receipt: Receipt


def make_receipt(
    evaluation: Evaluation,
    request: ErasureRequest,
    items: Sequence[ObjectVersion],
    manifest: bytes | None,
    requested_at: float,
) -> Receipt:
    """Return the receipt of an erasure that is about to begin.

    Args:
        items: the versions to remove.
        manifest: the bytes of the manifest that is to be removed, or None.
        requested_at: the time, in seconds since the epoch.
    """
    counts = {
        "objects": len({item.key for item in items}),
        "versions": len(items),
        "size": sum(item.size for item in items),
        "documents": tuple(sorted(_hashes(items))),
        "manifest": hashlib.sha256(manifest).hexdigest() if manifest else None,
    }
    return Receipt.of_request(evaluation, request, format_utc(requested_at)).model_copy(update=counts)


def _hashes(items: Iterable[ObjectVersion]) -> set[str]:
    """Return the hashes of the documents and bundles among these versions."""
    return {found[1] for found in (_NAMED_BY_CONTENT.search(item.key) for item in items) if found}


def select_unnamed(receipts: Sequence[StoredReceipt], items: Sequence[ObjectVersion]) -> list[ObjectVersion]:
    """Return the documents and bundles among these versions that no receipt names."""
    named = {sha256 for kept in receipts for sha256 in kept.receipt.documents}
    return [item for item in items if _hashes([item]) - named]


async def begin(bucket: Bucket, receipt: Receipt) -> StoredReceipt:
    """Write the receipt of an erasure that begins.

    Raises:
        StorageError: the receipt may not have been written.
    """
    key = f"{_folder(receipt.environment, receipt.eval_id)}{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}.json"
    data = receipt.as_json()
    await put(bucket, key, data, hashlib.sha256(data).hexdigest(), _LABELS)
    return StoredReceipt(key, receipt)


async def find_unfinished(bucket: Bucket, keys: Iterable[str]) -> list[StoredReceipt]:
    """Return the receipts with these keys that are not completed, the oldest first.

    Raises:
        IntegrityError: one of them is damaged.
        StorageError: the bucket failed.
    """
    found = [(key, await bucket.read(key)) for key in keys]
    receipts = [StoredReceipt(key, _parse_receipt(key, stored)) for key, stored in found if stored]
    return [each for each in receipts if each.receipt.completed_at is None]


async def find_all_unfinished(
    bucket: Bucket, environments: Iterable[str], report_damage: Callable[[Evaluation, str], object]
) -> Mapping[Evaluation, Sequence[Receipt]]:
    """Return the receipts of these environments that are not completed, the oldest of each evaluation first.

    Args:
        report_damage: called with evaluation and key of each receipt that cannot be read.

    Raises:
        StorageError: the bucket failed.
    """
    unfinished = defaultdict[Evaluation, list[Receipt]](list)
    at_once = asyncio.Semaphore(_AT_ONCE)

    async def read(evaluation: Evaluation, key: str) -> Sequence[StoredReceipt]:
        try:
            async with at_once:
                return await find_unfinished(bucket, [key])
        except IntegrityError:
            report_damage(evaluation, key)
            return ()

    for environment in environments:
        async for some in bucket.list_objects(f"{RECEIPTS}{environment}/"):
            keys = (each.key for each in some if each.key.endswith(".json"))
            named = [(evaluation, key) for key in keys if (evaluation := parse_evaluation(key.removeprefix(RECEIPTS)))]
            found = await asyncio.gather(*(read(*each) for each in named))
            for (evaluation, _), receipts in zip(named, found, strict=True):
                for each in receipts:
                    unfinished[evaluation].append(each.receipt)
    return unfinished


async def begin_waiting(bucket: Bucket, kept: StoredReceipt, counts: Receipt) -> StoredReceipt:
    """Add counts and hashes of the objects that are about to be removed to the receipt of a deferred request.

    Args:
        counts: the receipt that a new request would have.

    Raises:
        ManifestChanged: another process wrote the receipt in between.
        StorageError: the receipt may not have been written.
    """
    if not kept.receipt.is_waiting:
        return kept
    found = await bucket.read(kept.key)
    if found and not (known := _parse_receipt(kept.key, found)).is_waiting:
        # A concurrent erasure has begun with the same receipt.
        return StoredReceipt(kept.key, known)
    counted = {name: getattr(counts, name) for name in ("objects", "versions", "size", "documents", "manifest")}
    begun = kept.receipt.model_copy(update={**counted, "begun_at": counts.requested_at})
    await _replace(bucket, StoredReceipt(kept.key, begun), found, lambda there: not there.is_waiting)
    return StoredReceipt(kept.key, begun)


async def _replace(
    bucket: Bucket, kept: StoredReceipt, before: StoredObject | None, is_done: Callable[[Receipt], bool]
) -> None:
    """Replace a receipt, unless another process has already done so."""
    try:
        await bucket.replace(kept.key, kept.receipt.as_json(), _LABELS, before.etag if before else None)
    except (ManifestChanged, WriteUnconfirmed):
        # Our write may have reached the store even if its answer was lost.
        there = await bucket.read(kept.key)
        if there is None or not is_done(_parse_receipt(kept.key, there)):
            raise


async def complete(
    bucket: Bucket, kept: StoredReceipt, late: Sequence[ObjectVersion] = (), remaining: Sequence[str] = ()
) -> StoredReceipt:
    """Complete the receipt of an erasure.

    Args:
        late: removed versions that did not exist when the receipt was begun.
        remaining: places where the ID may remain.

    Raises:
        ManifestChanged: another erasure wrote the receipt in between.
        StorageError: the receipt may not have been written.
    """
    found = await bucket.read(kept.key)
    before = kept.receipt
    if found and (known := _parse_receipt(kept.key, found)).completed_at:
        # A concurrent erasure has completed the same receipt.
        return StoredReceipt(kept.key, known)
    done = before.model_copy(
        update={
            "objects": before.objects + len({item.key for item in late}),
            "versions": before.versions + len(late),
            "size": before.size + sum(item.size for item in late),
            "documents": tuple(sorted({*before.documents, *_hashes(late)})),
            "remaining": tuple(remaining),
            "completed_at": utc_now(),
        }
    )
    await _replace(bucket, StoredReceipt(kept.key, done), found, lambda there: there.completed_at is not None)
    return StoredReceipt(kept.key, done)


def list_receipt_keys(versions: ObjectVersions, evaluation: Evaluation) -> list[str]:
    """Return the keys of an evaluation's receipts, the oldest first."""
    return [key for key in versions.keys(_folder(evaluation.environment, evaluation.eval_id)) if key.endswith(".json")]


def _folder(environment: str, eval_id: str) -> str:
    return f"{RECEIPTS}{environment}/{eval_id}/"


def _parse_receipt(key: str, stored: StoredObject) -> Receipt:
    try:
        return Receipt.model_validate_json(stored.data)
    except ValidationError:
        raise IntegrityError(describe_damage(key)) from None


def describe_damage(key: str) -> str:
    """Return what is wrong with a receipt that cannot be read, and what to do."""
    return f"the receipt {key} is damaged or of a newer format: restore it, or use the release that wrote it"
