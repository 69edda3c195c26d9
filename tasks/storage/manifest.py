"""The record of one evaluation, committed last: objects → the record. Its existence is the truth."""

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from typing import Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tasks.errors import IntegrityError
from tasks.model.evaluation import Evaluation
from tasks.model.outcome import AtSource, ManifestOutcome, NoDocumentsReason, Outcome, SourceStatus
from tasks.storage.bucket import Bucket, StoredObject

SHA256 = r"^[0-9a-f]{64}$"
_UTC = r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$"


def _is_none(value: object) -> bool:
    return value is None


class ArchiveRecord(BaseModel):
    """A part of a JSON object in the archive."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    def as_json(self) -> bytes:
        """Return the record as it stands in the archive."""
        return (self.model_dump_json(by_alias=True, indent=1) + "\n").encode()


class DocumentRecord(ArchiveRecord):
    """A document that is in the archive."""

    name: str = Field(description="Its name in the bundle, as it stood there; never a path, never a key.")
    kind: str = Field(description="document_front, document_back, selfie, secondary_document, attachment or other.")
    key: str = Field(description="Where it is, below the archive's prefix.")
    media_type: str = Field(description="Told from its content.")
    size: int = Field(ge=0, description="Bytes.")
    sha256: str = Field(pattern=SHA256, description="Hash of its bytes.")
    modified: str | None = Field(description="Time in the bundle, without a zone.")
    named_as: str | None = Field(
        default=None, description="Media type that its name promised, where the content is another."
    )
    sealed_with: str | None = Field(
        default=None,
        exclude_if=_is_none,
        description="ID of the key that the object was sealed with; absent where it is as it came.",
    )
    superseded: bool = Field(
        default=False, description="RiskOS did not have it any more when it last said what it has; the archive does."
    )


class UnreadableRecord(ArchiveRecord):
    """A file of the bundle that has no content, or could not be read; then the bundle is in quarantine."""

    name: str = Field(description="Its name in the bundle.")
    cause: str = Field(description="Why, as a short fixed word.")


class BundleRecord(ArchiveRecord):
    """The ZIP as downloaded."""

    filename: str | None = Field(description="Name that RiskOS gave it.")
    size: int = Field(ge=0, description="Bytes.")
    sha256: str = Field(pattern=SHA256, description="Hash of its bytes.")
    sealed_with: str | None = Field(
        default=None,
        exclude_if=_is_none,
        description="ID of the key that it is sealed with in quarantine; absent where it is not.",
    )


class ResponseRecord(ArchiveRecord):
    """What RiskOS answered."""

    status: int = Field(description="HTTP status; 0 if RiskOS was not asked.")
    message: str | None = Field(description="What it said, cut; null for a bundle.")
    request_id: str | None = Field(
        default=None, exclude_if=_is_none, description="RiskOS's ID of the request; absent if it gave none."
    )


class SourceRecord(ArchiveRecord):
    """What RiskOS had when it was last asked; ``documents`` is what the archive holds."""

    status: SourceStatus = Field(description="What RiskOS had of the documents that the archive holds.")
    asked_at: str | None = Field(pattern=_UTC, description="When RiskOS first gave this answer; null if never asked.")
    response: ResponseRecord = Field(description="The answer that the status was told from.")


class NoDocumentsRecord(ArchiveRecord):
    """Why RiskOS has no documents."""

    reason: NoDocumentsReason = Field(description="As far as it is known.")
    evidence: tuple[str, ...] = Field(description="What the reason was told from.")


class TriggerRecord(ArchiveRecord):
    """Why the evaluation was archived."""

    source: str
    run: str | None
    event_type: str | None
    event_id: str | None


class ErasedRecord(ArchiveRecord):
    """The evaluation was erased; this manifest is what keeps it from being archived again."""

    receipt: str = Field(description="Key of the receipt: who asked for it, when and why, and what went.")
    at: str = Field(pattern=_UTC, description="When.")


class Manifest(ArchiveRecord):
    """The record of one evaluation in the archive of docv-archive."""

    model_config = ConfigDict(title="docv-archive manifest")

    schema_: Literal[1] = Field(alias="schema", description="Version of this format.")
    eval_id: str = Field(description="The evaluation.")
    environment: Literal["production", "sandbox"]
    account: str = Field(description="Name of the account it was asked for with.")
    outcome: Literal[
        Outcome.ARCHIVED, Outcome.NO_DOCUMENTS, Outcome.NOT_FOUND, Outcome.REJECTED, Outcome.UNREADABLE
    ] = Field(description="How it ended; without documents the manifest is a tombstone.")
    revision: int = Field(ge=1, description="Counts the manifests of this evaluation.")
    previous: str | None = Field(
        pattern=SHA256, description="SHA-256 of the manifest before, kept as revisions/{revision - 1}.json."
    )
    documents: tuple[DocumentRecord, ...] = Field(description="Every document that the archive holds.")
    unreadable: tuple[UnreadableRecord, ...] = ()
    bundle: BundleRecord | None
    response: ResponseRecord
    source: SourceRecord | None = Field(
        default=None,
        exclude_if=_is_none,
        description="What RiskOS had when last asked; absent in manifests of versions before this field.",
    )
    no_documents: NoDocumentsRecord | None
    trigger: TriggerRecord
    event_at: str | None = Field(
        default=None,
        pattern=_UTC,
        description="When the evaluation happened, as far as an event or a producer said so.",
    )
    retrieved_at: str = Field(
        pattern=_UTC, description="When RiskOS answered; if it was not asked, when that was decided."
    )
    archived_at: str = Field(pattern=_UTC, description="When this manifest was made.")
    archiver: str = Field(description="Program and version that made it.")
    erased: ErasedRecord | None = Field(
        default=None, exclude_if=_is_none, description="There where the evaluation was erased."
    )

    @property
    def manifest_outcome(self) -> ManifestOutcome:
        """What it says of the evaluation: its outcome, or that it was erased."""
        if self.erased:
            return ManifestOutcome.ERASED
        # Manifests without `source` recorded RiskOS's last answer as the outcome, whatever the archive held.
        is_held = self.documents and self.outcome is not Outcome.UNREADABLE
        return ManifestOutcome.ARCHIVED if is_held else ManifestOutcome(self.outcome)

    @property
    def source_status(self) -> SourceStatus:
        """What RiskOS had when it was last asked, as far as the manifest says."""
        return self.source.status if self.source else SourceStatus.UNKNOWN

    @property
    def no_documents_reason(self) -> NoDocumentsReason | None:
        """Why there are no documents, if RiskOS has none and the archive holds none."""
        is_tombstone = self.manifest_outcome is ManifestOutcome.NO_DOCUMENTS
        return self.no_documents.reason if is_tombstone and self.no_documents else None

    @property
    def last_response(self) -> ResponseRecord:
        """What RiskOS answered when it was last asked."""
        return self.source.response if self.source else self.response

    @property
    def holds_anything(self) -> bool:
        """Whether the archive holds documents of the evaluation, or a bundle in quarantine."""
        return bool(self.documents) or self.manifest_outcome is ManifestOutcome.UNREADABLE

    def at_source(self, document: DocumentRecord) -> AtSource:
        """Return whether RiskOS had a document when it was last asked."""
        if self.source_status is SourceStatus.UNKNOWN:
            return AtSource.UNKNOWN
        return AtSource.NO if document.superseded else AtSource.YES

    @property
    def is_without_docv(self) -> bool:
        """Whether it says that there was no DocV step; a new order asks RiskOS nevertheless."""
        return self.no_documents_reason is NoDocumentsReason.NO_DOCV_STEP

    def same_content(self, other: "Manifest") -> bool:
        """Return whether both tell of the same outcome, documents, source status and answer.

        Times, trigger, request ID and the packing of the bundle may differ: RiskOS makes the ZIP anew for each request.
        """
        return self.comparison_key() == other.comparison_key()

    def comparison_key(self) -> tuple[object, ...]:
        """Return what two manifests are compared by."""
        documents = sorted(
            (document.name, document.kind, document.key) for document in self.documents if not document.superseded
        )
        unreadable = sorted((each.name, each.cause) for each in self.unreadable)
        answers = [(each.status, each.message) for each in (self.response, self.last_response)]
        status = self.source.status if self.source else None
        return self.outcome, documents, unreadable, answers, status, self.no_documents, self.erased


@dataclass(frozen=True, slots=True)
class StoredManifest:
    """A manifest as it stands in the archive.

    Attributes:
        manifest: what it says.
        stored: its bytes and its version there.
    """

    manifest: Manifest
    stored: StoredObject


@cache
def archiver() -> str:
    """Return program and version, as manifests name them; asked once, for the answer is searched for on disk."""
    return f"docv-archive {version('docv-archive')}"


def utc_now() -> str:
    """Return the time as manifests write it."""
    return format_utc(time.time())


def format_utc(seconds: float) -> str:
    """Return seconds since the epoch as manifests write times: RFC 3339 with milliseconds."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def schema() -> dict[str, Any]:
    """Return the JSON schema of manifests, as it is published."""
    document = Manifest.model_json_schema(by_alias=True, mode="serialization")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **document}


async def read_manifest(bucket: Bucket, evaluation: Evaluation) -> StoredManifest | None:
    """Return the evaluation's manifest, or None where there is none.

    Raises:
        IntegrityError: there is one, but not one that we could have written.
        StorageError: the bucket did not say.
    """
    found = await bucket.read(evaluation.manifest_key)
    if found is None:
        return None
    try:
        manifest = Manifest.model_validate_json(found.data)
    except ValidationError:
        raise IntegrityError("a manifest is damaged or of a newer format") from None
    if (manifest.eval_id, manifest.environment) != (evaluation.eval_id, evaluation.environment):
        raise IntegrityError("a manifest speaks of another evaluation")
    return StoredManifest(manifest, found)


def manifest_error(data: bytes) -> str:
    """Return in a sentence why bytes are no manifest of ours; nothing of them is in it."""
    try:
        facts = orjson.loads(data)
    except orjson.JSONDecodeError:
        return "the manifest is no JSON"
    version = facts.get("schema") if isinstance(facts, dict) else None
    if isinstance(version, int) and version > 1:
        return f"the manifest is of a newer format ({version}): use a newer docv-archive"
    return "the manifest does not fit its schema, docs/manifest.schema.json"
