"""The certificate of disposal: the documents that one application of one rule disposed of, without personal names.

    receipts/disposals/{environment}/{time}-{hash}.json

Its key follows from the plan and the rule, and each disposal in a manifest names it. So a certificate can be written
from the manifests at any time, and an application that is repeated, or that runs on two machines, writes the same one.
"""

import contextlib
import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from pydantic import Field, ValidationError

from tasks.errors import IntegrityError, ManifestChanged
from tasks.model.evaluation import ENVIRONMENTS
from tasks.storage.bucket import Bucket, ObjectAttributes, WriteUnconfirmed
from tasks.storage.manifest import archiver, utc_now
from tasks.storage.manifest_records import SHA256, UTC_TIME, ArchiveRecord, DisposedRecord

CERTIFICATES = "receipts/disposals/"
"""Prefix of the keys of all certificates."""
_KEY = re.compile(
    rf"{CERTIFICATES}({'|'.join(ENVIRONMENTS)})/\d{{8}}T\d{{6}}\.\d{{6}}Z-[0-9a-f]{{8}}(-\d+)?\.json", re.ASCII
)
_LABELS = ObjectAttributes("application/json")
_TRIES = 5


class CertifiedDocument(ArchiveRecord):
    """A document of which no version exists any more."""

    kind: str
    sha256: str = Field(pattern=SHA256, description="Hash of its bytes.")
    size: int = Field(ge=0, description="Bytes.")


class Certificate(ArchiveRecord):
    """The certificate of one rule and one application."""

    schema_: Literal[1] = Field(default=1, alias="schema", description="Version of this format.")
    environment: str
    rule: str = Field(description="Name of the rule.")
    clock: str = Field(description="Its clock: archived, captured or the name of an event.")
    plan: str | None = Field(
        pattern=SHA256, description="SHA-256 of the plan; null if a later run completed an interrupted application."
    )
    evaluations: int = Field(ge=0, description="Evaluations that the documents belonged to.")
    bytes: int = Field(ge=0, description="Bytes of the documents.")
    disposed_from: str = Field(pattern=UTC_TIME, description="When the first document was disposed of.")
    disposed_until: str = Field(pattern=UTC_TIME, description="When the last document was disposed of.")
    completed_at: str = Field(
        pattern=UTC_TIME, description="When all versions of the objects were found to be gone, for the last time."
    )
    by: str = Field(description="The operator.")
    host: str = Field(description="The machine on which the command ran.")
    archiver: str = Field(description="Program and version.")
    documents: tuple[CertifiedDocument, ...]


@dataclass(frozen=True, slots=True)
class Operator:
    """The operator who applies a plan.

    Attributes:
        by: the name.
        host: the machine on which the command runs.
    """

    by: str
    host: str


@dataclass(frozen=True, slots=True)
class CertificateKeys:
    """The keys of the certificates of a plan.

    Attributes:
        plan: SHA-256 of the plan.
        made_at: when it was made.
    """

    plan: str
    made_at: str

    def key(self, environment: str, rule: str, part: int) -> str:
        """Return the key for a rule.

        Args:
            part: number of the part of a large plan, from 0.
        """
        suffix = f"-{part + 1}" if part else ""
        return f"{self.prefix(environment)}{_hash(self.plan, rule)}{suffix}.json"

    def is_own(self, key: str) -> bool:
        """Return whether a key is one of this plan."""
        return any(key.startswith(self.prefix(environment)) for environment in ENVIRONMENTS)

    def prefix(self, environment: str) -> str:
        """Return the prefix of all keys."""
        return f"{CERTIFICATES}{environment}/{datetime.fromisoformat(self.made_at):%Y%m%dT%H%M%S.%f}Z-"


def leftover_key(record: DisposedRecord, eval_id: str) -> str | None:
    """Return the key of a certificate of its own for a document that S3 still keeps; None without a certificate.

    It stays the same for as long as S3 keeps the document.
    """
    if record.receipt is None:
        return None
    time = record.receipt[: record.receipt.index("Z-")]
    return f"{time}Z-{_hash(time, record.rule, eval_id)}.json"


def _hash(*texts: str) -> str:
    return hashlib.sha256(" ".join(texts).encode()).hexdigest()[:8]


def is_certificate_key(key: str, environment: str) -> bool:
    """Return whether a key can be that of a certificate of an environment."""
    found = _KEY.fullmatch(key)
    return found is not None and found[1] == environment


async def read_certificate(bucket: Bucket, key: str) -> Certificate | None:
    """Return a certificate, or None if it does not exist.

    Raises:
        IntegrityError: it is damaged or of a newer format.
        StorageError: the bucket does not answer.
    """
    found = await bucket.read(key)
    return _parse(found.data) if found else None


async def certify(
    bucket: Bucket,
    key: str,
    disposals: Sequence[Sequence[DisposedRecord]],
    plan: str | None,
    operator: Operator,
    others: Counter[tuple[str, str]],
) -> Certificate:
    """Write a certificate, or add the disposals that it does not list yet.

    Args:
        key: its key, which all these disposals name.
        disposals: the disposals of each evaluation.
        plan: SHA-256 of the plan; None if it is not known.
        operator: completes it.
        others: kinds and hashes of documents of other evaluations that it is known to list.

    Raises:
        ManifestChanged: another process changed it during every try.
        IntegrityError: it is damaged.
        StorageError: it may not have been written.
    """
    for _ in range(_TRIES):
        found = await bucket.read(key)
        before = _parse(found.data) if found else None
        unlisted, evaluations = _find_unlisted(before, disposals, others)
        if before and not unlisted:
            return before
        record = _extend(before, unlisted, evaluations, key, plan, operator)
        with contextlib.suppress(ManifestChanged, WriteUnconfirmed):  # the next read shows what is stored
            await bucket.replace(key, record.as_json(), _LABELS, found.etag if found else None)
            return record
    raise ManifestChanged


def _find_unlisted(
    before: Certificate | None, disposals: Iterable[Sequence[DisposedRecord]], others: Counter[tuple[str, str]]
) -> tuple[list[DisposedRecord], int]:
    """Return the disposals that a certificate does not list, and how many evaluations it does not count.

    Several evaluations may have had the same bytes, and a certificate does not say which of them it lists. But it
    lists no document that was disposed of after its ``disposed_until``.
    """
    listed = Counter((each.kind, each.sha256) for each in before.documents) - others if before else Counter()
    until = before.disposed_until if before else ""
    unlisted, evaluations = list[DisposedRecord](), 0
    for records in disposals:
        new = []
        for each in records:
            if each.disposed_at <= until and listed[each.kind, each.sha256]:
                listed[each.kind, each.sha256] -= 1
            else:
                new.append(each)
        unlisted += new
        evaluations += len(new) == len(records)
    return unlisted, evaluations


def _extend(
    before: Certificate | None,
    unlisted: Sequence[DisposedRecord],
    evaluations: int,
    key: str,
    plan: str | None,
    operator: Operator,
) -> Certificate:
    new = [CertifiedDocument(kind=each.kind, sha256=each.sha256, size=each.size) for each in unlisted]
    documents = sorted((*(before.documents if before else ()), *new), key=lambda each: (each.sha256, each.kind))
    times = [each.disposed_at for each in unlisted]
    times += [before.disposed_from, before.disposed_until] if before else []
    return Certificate(
        environment=key.split("/")[2],
        rule=unlisted[0].rule,
        clock=unlisted[0].clock,
        plan=(before and before.plan) or plan,
        evaluations=(before.evaluations if before else 0) + evaluations,
        bytes=sum(each.size for each in documents),
        disposed_from=min(times),
        disposed_until=max(times),
        completed_at=utc_now(),
        by=operator.by,
        host=operator.host,
        archiver=archiver(),
        documents=tuple(documents),
    )


def _parse(data: bytes) -> Certificate:
    try:
        return Certificate.model_validate_json(data)
    except ValidationError:
        raise IntegrityError("a certificate of disposal is damaged or of a newer format") from None
