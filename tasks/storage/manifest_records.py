"""The parts of a manifest, as JSON objects in the archive."""

from datetime import date, datetime
from operator import not_
from typing import Protocol

from pydantic import BaseModel, ConfigDict, Field

from tasks.model.outcome import NoDocumentsReason, Restriction, SourceStatus

SHA256 = r"^[0-9a-f]{64}$"
"""Pattern of a hash."""
UTC_TIME = r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$"
"""Pattern of a time, as ``format_utc`` makes it."""
ERASURE = "erasure"
"""The rule of documents whose kind was erased; no rule of a schedule may have this name."""
_REQUEST = "request"


class ArchiveRecord(BaseModel):
    """A part of a JSON object in the archive."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    def as_json(self) -> bytes:
        """Return the record as it is stored in the archive."""
        return (self.model_dump_json(by_alias=True, indent=1) + "\n").encode()


class DocumentRecord(ArchiveRecord):
    """A document that is in the archive."""

    name: str = Field(description="Its name in the bundle, unchanged; never used as a path or a key.")
    kind: str = Field(description="document_front, document_back, selfie, secondary_document, attachment or other.")
    key: str = Field(description="Its key below the archive's prefix.")
    media_type: str = Field(description="Detected from its content.")
    size: int = Field(ge=0, description="Bytes.")
    sha256: str = Field(pattern=SHA256, description="Hash of its bytes.")
    modified: str | None = Field(description="Time in the bundle, without a zone.")
    named_as: str | None = Field(
        default=None, description="Media type that its name suggests, if its content has another."
    )
    name_encoding: str | None = Field(
        default=None,
        exclude_if=not_,
        description="How its name was decoded: utf-8, assumed-utf-8, cp437 or unicode-path; absent if it is ASCII.",
    )
    name_conflict: tuple[str, ...] = Field(
        default=(),
        exclude_if=not_,
        description="Other names that the bundle gives it; present if the bundle contradicts itself about its name.",
    )
    sealed_with: str | None = Field(
        default=None,
        exclude_if=not_,
        description="ID of the key that the object was sealed with; absent if it is not sealed.",
    )
    superseded: bool = Field(
        default=False,
        description="True if RiskOS's last answer no longer had it; the archive still holds it.",
    )
    lenient: str | None = Field(
        default=None,
        exclude_if=not_,
        description="Why its bundle was refused, if `quarantine retry --lenient` archived it anyway; else absent.",
    )
    archived_at: str | None = Field(
        default=None,
        exclude_if=not_,
        pattern=UTC_TIME,
        description="When it was first archived; absent in manifests of versions before this field.",
    )


class DisposedRecord(ArchiveRecord):
    """A document that a rule of the retention schedule, or an erasure of its kind, removed; it never comes back."""

    kind: str = Field(description="Its kind, as in `documents`.")
    key: str = Field(description="Its former key; no version of the object exists any more.")
    sha256: str = Field(pattern=SHA256, description="Hash of its bytes.")
    size: int = Field(ge=0, description="Bytes.")
    rule: str = Field(description="Name of the rule; `erasure` if its kind was erased.")
    clock: str = Field(
        description="The clock of the rule: archived, captured or the name of an event; `request` for an erasure."
    )
    started: date = Field(description="Day on which the clock started.")
    due: date = Field(description="First day on which the rule allowed the disposal; the day of the erasure.")
    archived_at: str | None = Field(
        default=None, exclude_if=not_, description="When it was first archived; absent if it never was."
    )
    disposed_at: str = Field(pattern=UTC_TIME, description="When it was listed here.")
    receipt: str | None = Field(
        default=None,
        exclude_if=not_,
        description="Key of the certificate of disposal, or of the receipt of the erasure; absent if the document was "
        "never stored.",
    )


class _Bytes(Protocol):
    """A document, in a bundle or in a manifest."""

    @property
    def kind(self) -> str: ...
    @property
    def sha256(self) -> str: ...
    @property
    def size(self) -> int: ...


class ErasedKindRecord(ArchiveRecord):
    """The erasure of all documents of one kind; no document of this kind is archived again."""

    kind: str = Field(description="The kind, as in `documents`.")
    receipt: str = Field(description="Key of the receipt of the erasure.")
    at: str = Field(pattern=UTC_TIME, description="When it was erased.")

    def list_disposed(
        self,
        document: _Bytes,
        key: str,
        disposed_at: str,
        *,
        archived_at: str | None = None,
        receipt: str | None = None,
    ) -> DisposedRecord:
        """Return the record of a document that the erasure removed, or that is not stored because of it.

        Args:
            key: its key, which it has or would have.
            disposed_at: the current time, in the format of ``utc_now``.
            archived_at: when it was first archived; None if it never was.
            receipt: key of the receipt; None if it was never stored.
        """
        day = datetime.fromisoformat(self.at).date()
        return DisposedRecord(
            kind=str(document.kind),
            key=key,
            sha256=document.sha256,
            size=document.size,
            rule=ERASURE,
            clock=_REQUEST,
            started=day,
            due=day,
            archived_at=archived_at,
            disposed_at=disposed_at,
            receipt=receipt,
        )


class UnreadableRecord(ArchiveRecord):
    """A file of the bundle that has no content, or could not be read; then the bundle is in quarantine."""

    name: str = Field(description="Its name in the bundle.")
    cause: str = Field(description="The reason, as a short fixed word.")


class PaddingRecord(ArchiveRecord):
    """Bytes of a ZIP that belong to no member and not to its directory."""

    before: int = Field(ge=0, description="Bytes before the first member.")
    after: int = Field(ge=0, description="Bytes after the end record: blanks, NULs and line ends.")


class BundleRecord(ArchiveRecord):
    """The ZIP as downloaded."""

    filename: str | None = Field(description="Name that RiskOS gave it.")
    size: int = Field(ge=0, description="Bytes.")
    sha256: str = Field(pattern=SHA256, description="Hash of its bytes.")
    sealed_with: str | None = Field(
        default=None,
        exclude_if=not_,
        description="ID of the key that it is sealed with in quarantine; absent if it is not sealed.",
    )
    padding: PaddingRecord | None = Field(
        default=None, exclude_if=not_, description="Present if there were other bytes before or after the ZIP."
    )


class ResponseRecord(ArchiveRecord):
    """RiskOS's response."""

    status: int = Field(description="HTTP status; 0 if RiskOS was not asked.")
    message: str | None = Field(description="Its message, cut to 500 characters; null for a bundle.")
    request_id: str | None = Field(
        default=None, exclude_if=not_, description="RiskOS's ID of the request; absent if it gave none."
    )


class SourceRecord(ArchiveRecord):
    """What RiskOS had when it was last asked; ``documents`` lists what the archive holds."""

    status: SourceStatus = Field(description="What RiskOS had of the documents that the archive holds.")
    asked_at: str | None = Field(
        pattern=UTC_TIME, description="When RiskOS first gave this answer; null if never asked."
    )
    response: ResponseRecord = Field(description="The response that the status follows from.")


class NoDocumentsRecord(ArchiveRecord):
    """Why RiskOS has no documents."""

    reason: NoDocumentsReason = Field(description="The reason, if it is known.")
    evidence: tuple[str, ...] = Field(description="The facts that the reason follows from.")


class WithheldRecord(ArchiveRecord):
    """A bundle that was counted while it arrived, and of which nothing was stored."""

    documents: int | None = Field(ge=0, description="Files in it; null if its end does not say.")
    bytes: int = Field(ge=0, description="Its size.")


class RestrictedRecord(ArchiveRecord):
    """The images of the evaluation must not be kept: the document is a military ID, or the person is a minor."""

    reason: Restriction = Field(description="military or minor.")
    evidence: tuple[str, ...] = Field(description="The facts that the reason follows from.")
    withheld: WithheldRecord | None = Field(
        description="The bundle that RiskOS sent last and that was not stored; null if documents were archived."
    )


class TriggerRecord(ArchiveRecord):
    """Why the evaluation was archived."""

    source: str
    run: str | None
    event_type: str | None
    event_id: str | None


class ErasedRecord(ArchiveRecord):
    """The erasure of the evaluation; this manifest prevents that it is archived again."""

    receipt: str = Field(
        description="Key of the receipt, which says who asked for it, when and why, and what was removed."
    )
    at: str = Field(pattern=UTC_TIME, description="When it was erased.")

    @property
    def at_seconds(self) -> float:
        """When it was erased, in seconds since the epoch."""
        return datetime.fromisoformat(self.at).timestamp()
