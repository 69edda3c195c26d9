"""The manifest: the record of one evaluation, written after its objects. Only it proves the evaluation's outcome."""

import time
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from operator import not_
from pathlib import PurePosixPath
from typing import Any, Literal

from pydantic import ConfigDict, Field, ValidationError

from tasks.errors import IntegrityError
from tasks.model.evaluation import Evaluation
from tasks.model.outcome import AtSource, ManifestOutcome, NoDocumentsReason, Outcome, SourceStatus
from tasks.storage.bucket import Bucket, StoredObject
from tasks.storage.manifest_records import (
    ERASURE,
    SHA256,
    UTC_TIME,
    ArchiveRecord,
    BundleRecord,
    DisposedRecord,
    DocumentRecord,
    ErasedKindRecord,
    ErasedRecord,
    NoDocumentsRecord,
    ResponseRecord,
    RestrictedRecord,
    SourceRecord,
    TriggerRecord,
    UnreadableRecord,
)

MAX_MANIFEST_BYTES = 64 << 20
"""The largest manifest that is read; one with 65,535 documents and all names that a bundle may have is smaller."""


class Manifest(ArchiveRecord):
    """The record of one evaluation in the archive of docv-archive."""

    model_config = ConfigDict(title="docv-archive manifest")

    schema_: Literal[1] = Field(alias="schema", description="Version of this format.")
    eval_id: str = Field(description="The evaluation.")
    environment: Literal["production", "sandbox"]
    account: str = Field(description="Name of the account that it was requested with.")
    outcome: Literal[
        Outcome.ARCHIVED,
        Outcome.NO_DOCUMENTS,
        Outcome.NOT_FOUND,
        Outcome.REJECTED,
        Outcome.WITHHELD,
        Outcome.UNREADABLE,
    ] = Field(description="How it ended; without documents the manifest is a tombstone.")
    revision: int = Field(ge=1, description="Counts the manifests of this evaluation.")
    previous: str | None = Field(
        pattern=SHA256, description="SHA-256 of the previous manifest, stored as revisions/{revision - 1}.json."
    )
    documents: tuple[DocumentRecord, ...] = Field(description="Every document that the archive holds.")
    disposed: tuple[DisposedRecord, ...] = Field(
        default=(),
        exclude_if=not_,
        description="Every document that the retention schedule, or an erasure of its kind, disposed of.",
    )
    erased_kinds: tuple[ErasedKindRecord, ...] = Field(
        default=(),
        exclude_if=not_,
        description="The kinds of documents that were erased, and that are not archived again.",
    )
    matters: tuple[str, ...] = Field(
        default=(), exclude_if=not_, description="Names of the legal holds that cover the evaluation."
    )
    matter_kinds: dict[str, tuple[str, ...]] = Field(
        default_factory=dict,
        exclude_if=not_,
        description="The kinds of documents that a legal hold covers, by its name, if it does not cover all.",
    )
    tags: dict[str, str] = Field(
        default_factory=dict, exclude_if=not_, description="The user's own tags when the manifest was made."
    )
    unreadable: tuple[UnreadableRecord, ...] = ()
    unconfirmed: bool = Field(
        default=False,
        exclude_if=not_,
        description="True until RiskOS was asked a second time for a bundle that could not be read whole.",
    )
    bundle: BundleRecord | None
    quarantined: tuple[BundleRecord, ...] = Field(
        default=(), description="Every bundle of the evaluation that is in quarantine, the newest first."
    )
    response: ResponseRecord
    source: SourceRecord | None = Field(
        default=None,
        exclude_if=not_,
        description="What RiskOS had when last asked; absent in manifests of versions before this field.",
    )
    no_documents: NoDocumentsRecord | None
    restricted: RestrictedRecord | None = Field(
        default=None, exclude_if=not_, description="Present if images of the evaluation must not be kept."
    )
    trigger: TriggerRecord
    event_at: str | None = Field(
        default=None,
        pattern=UTC_TIME,
        description="Time of the evaluation according to an event or a producer.",
    )
    retrieved_at: str = Field(
        pattern=UTC_TIME, description="When RiskOS answered; if it was not asked, when that was decided."
    )
    archived_at: str = Field(pattern=UTC_TIME, description="When this manifest was made.")
    archiver: str = Field(description="Program and version that made it.")
    erased: ErasedRecord | None = Field(
        default=None, exclude_if=not_, description="Present if the evaluation was erased."
    )

    @property
    def manifest_outcome(self) -> ManifestOutcome:
        """The outcome of the evaluation, or ``erased``, or ``disposed`` if all its documents were disposed of."""
        if self.erased:
            return ManifestOutcome.ERASED
        # The bundle may hold more documents than were disposed of; once a kind is erased, it is not kept.
        is_unreadable = self.outcome is Outcome.UNREADABLE and bool(self.quarantined or self.erased_kinds)
        if self.disposed and not self.documents and not is_unreadable:
            return ManifestOutcome.DISPOSED
        # Manifests without `source` recorded RiskOS's last answer as the outcome, whatever the archive held.
        is_held = self.documents and self.outcome is not Outcome.UNREADABLE
        return ManifestOutcome.ARCHIVED if is_held else ManifestOutcome(self.outcome)

    @property
    def source_status(self) -> SourceStatus:
        """Which documents RiskOS had when it was last asked; unknown if the manifest does not record it."""
        return self.source.status if self.source else SourceStatus.UNKNOWN

    @property
    def no_documents_reason(self) -> NoDocumentsReason | None:
        """The reason why there are no documents, if RiskOS has none and the archive holds none."""
        is_tombstone = self.manifest_outcome is ManifestOutcome.NO_DOCUMENTS
        return self.no_documents.reason if is_tombstone and self.no_documents else None

    @property
    def last_response(self) -> ResponseRecord:
        """RiskOS's response when it was last asked."""
        return self.source.response if self.source else self.response

    @property
    def quarantined_bundles(self) -> tuple[BundleRecord, ...]:
        """Every bundle in quarantine that the manifest names; manifests of older releases name one, as ``bundle``."""
        names_all = self.quarantined or self.erased_kinds or self.bundle is None
        if names_all or self.manifest_outcome is not ManifestOutcome.UNREADABLE:
            return self.quarantined
        return (self.bundle,) if self.bundle else ()

    @property
    def rereadable_bundle(self) -> BundleRecord | None:
        """The bundle that RiskOS sent last, if it is in quarantine."""
        last = self.bundle and self.bundle.sha256
        return next((each for each in self.quarantined_bundles if each.sha256 == last), None)

    @property
    def is_asked_since(self) -> bool:
        """Whether RiskOS was asked again after it had sent the bundle, and then sent none."""
        last = (self.source.asked_at, self.source.response) if self.source else (self.retrieved_at, self.response)
        return last != (self.retrieved_at, self.response)

    @property
    def holds_anything(self) -> bool:
        """Whether the archive holds documents of the evaluation, or a bundle in quarantine."""
        return bool(self.documents or self.quarantined_bundles)

    @property
    def has_held_anything(self) -> bool:
        """Whether the archive holds documents of the evaluation, or held some until they were disposed of."""
        return self.holds_anything or bool(self.disposed)

    def plain_keys(self, evaluation: Evaluation) -> frozenset[str]:
        """Return the keys of the named objects that are not sealed."""
        documents = [each.key for each in self.documents if not each.sealed_with]
        bundles = [evaluation.quarantine_key(each.sha256) for each in self.quarantined_bundles if not each.sealed_with]
        return frozenset((*documents, *bundles))

    def with_sealed_bundle(self, key_id: str | None) -> "Manifest":
        """Return the manifest with the ID of the key that its bundle in quarantine is sealed with."""
        bundle = self.bundle and self.bundle.model_copy(update={"sealed_with": key_id})
        return self.model_copy(update={"bundle": bundle, "quarantined": (bundle,) if bundle else ()})

    def find_matters(self, kinds: Collection[str]) -> tuple[str, ...]:
        """Return the legal holds that cover documents of some kinds."""
        return tuple(
            each for each in self.matters if not (limits := self.matter_kinds.get(each)) or set(limits) & set(kinds)
        )

    def is_held(self, kind: str | None) -> bool:
        """Return whether documents of a kind are under a legal hold; None for any other object of the evaluation."""
        return bool(self.matters if kind is None else self.find_matters([kind]))

    def documents_of(self, kinds: Collection[str]) -> tuple[DocumentRecord, ...]:
        """Return the documents of some kinds, and those of other kinds that have the same bytes."""
        hashes = {each.sha256 for each in self.documents if each.kind in kinds}
        return tuple(each for each in self.documents if each.sha256 in hashes)

    def must_be_gone(self, key: str) -> bool:
        """Return whether an object of the evaluation must not exist: it may hold documents of an erased kind."""
        if not self.erased_kinds:
            return False
        kinds = {each.kind for each in self.erased_kinds}
        hashes = {each.sha256 for each in self.disposed if each.rule == ERASURE}
        path = PurePosixPath(key)
        return key.startswith("quarantine/") or path.parent.name in kinds or path.name.partition(".")[0] in hashes

    def at_source(self, document: DocumentRecord) -> AtSource:
        """Return whether RiskOS had a document when it was last asked."""
        if self.source_status is SourceStatus.UNKNOWN:
            return AtSource.UNKNOWN
        return AtSource.NO if document.superseded else AtSource.YES

    @property
    def reason(self) -> NoDocumentsReason | None:
        """The reason why the archive holds no documents: RiskOS has none, or they were withheld."""
        if self.restricted and self.manifest_outcome is ManifestOutcome.WITHHELD:
            return NoDocumentsReason(self.restricted.reason)
        return self.no_documents_reason

    @property
    def evidence(self) -> tuple[str, ...]:
        """The facts that explain why there are no documents, or why some must not be kept."""
        records = (self.restricted, self.no_documents)
        return tuple(dict.fromkeys(each for record in records if record for each in record.evidence))

    @property
    def is_provisional(self) -> bool:
        """Whether there may be documents later, so that RiskOS is asked again without a refresh."""
        return bool(self.no_documents_reason and self.no_documents_reason.is_provisional)

    def same_content(self, other: "Manifest") -> bool:
        """Return whether a later manifest has the same outcome, documents, media types, source status and response.

        Times, trigger, request ID and the packing of the bundle may differ: RiskOS makes a new ZIP for each request.
        But a clock of the retention schedule may start at ``event_at``, so both have one or none.
        After an unconfirmed manifest, every response is new.
        """
        return not self.unconfirmed and self.comparison_key() == other.comparison_key()

    def comparison_key(self) -> tuple[object, ...]:
        """Return the value by which two manifests are compared."""
        documents = sorted(
            (each.name, each.kind, each.key, each.media_type, each.sealed_with or "", each.lenient or "")
            for each in self.documents
            if not each.superseded
        )
        unreadable = sorted((each.name, each.cause) for each in self.unreadable)
        answers = [(each.status, each.message) for each in (self.response, self.last_response)]
        status = self.source.status if self.source else None
        restricted = self.restricted and (self.restricted.evidence, self.restricted.withheld is None)
        facts = self.no_documents, restricted, self.erased, frozenset(self.disposed), self.erased_kinds
        holds = self.matters, tuple(sorted(self.matter_kinds.items()))
        return self.outcome, documents, unreadable, answers, status, self.event_at is None, *facts, *holds


@dataclass(frozen=True, slots=True)
class StoredManifest:
    """A manifest as it is stored in the archive.

    Attributes:
        manifest: the parsed manifest.
        stored: its bytes and its version in the archive.
    """

    manifest: Manifest
    stored: StoredObject


@cache
def archiver() -> str:
    """Return program and version, as manifests name them; cached, because the version is looked up on disk."""
    return f"docv-archive {version('docv-archive')}"


def utc_now() -> str:
    """Return the current time in the format of manifests."""
    return format_utc(time.time())


def format_utc(seconds: float) -> str:
    """Return seconds since the epoch in the format of manifests: RFC 3339 with milliseconds."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def schema() -> dict[str, Any]:
    """Return the published JSON schema of manifests."""
    document = Manifest.model_json_schema(by_alias=True, mode="serialization")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **document}


async def read_manifest(bucket: Bucket, evaluation: Evaluation) -> StoredManifest | None:
    """Return the evaluation's manifest, or None if it does not exist.

    Raises:
        IntegrityError: the manifest is too large, or this program cannot have written it.
        StorageError: the bucket could not be read.
    """
    found = await bucket.read(evaluation.manifest_key, MAX_MANIFEST_BYTES)
    if found is None:
        return None
    try:
        manifest = Manifest.model_validate_json(found.data)
    except ValidationError:
        raise IntegrityError("a manifest is damaged or of a newer format") from None
    if (manifest.eval_id, manifest.environment) != (evaluation.eval_id, evaluation.environment):
        raise IntegrityError("a manifest is of another evaluation")
    return StoredManifest(manifest, found)
