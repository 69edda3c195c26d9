"""How an evaluation can end: a closed set."""

import enum
from collections.abc import Collection, Iterable
from dataclasses import dataclass


class Outcome(enum.StrEnum):
    """How an evaluation ended. The values are part of the archive's format."""

    ARCHIVED = "archived"
    """Documents and manifest are in the archive, put there now."""
    UNCHANGED = "unchanged"
    """A manifest was there already, and the archive holds nothing new."""
    NO_DOCUMENTS = "no_documents"
    """RiskOS answered "No Documents Found", or there was no DocV step; never asked again by itself."""
    NOT_FOUND = "not_found"
    """RiskOS does not know the evaluation."""
    REJECTED = "rejected"
    """RiskOS refused the request with another 400."""
    UNREADABLE = "unreadable"
    """The bundle is damaged or unsafe, also when fetched again; it is kept in quarantine."""
    FAILED = "failed"
    """The attempts are used up: a dead letter, without a manifest."""
    CANCELLED = "cancelled"
    """An operator took it back while it waited. No manifest says so."""

    @property
    def ok(self) -> bool:
        """Whether nobody needs to look: everything there was to archive is in the archive."""
        return self in {Outcome.ARCHIVED, Outcome.UNCHANGED, Outcome.NO_DOCUMENTS}


class ManifestOutcome(enum.StrEnum):
    """What a manifest says of its evaluation: the outcome that it records, or that the evaluation was erased."""

    ARCHIVED = Outcome.ARCHIVED
    NO_DOCUMENTS = Outcome.NO_DOCUMENTS
    NOT_FOUND = Outcome.NOT_FOUND
    REJECTED = Outcome.REJECTED
    UNREADABLE = Outcome.UNREADABLE
    ERASED = "erased"

    @property
    def ok(self) -> bool:
        """Whether the evaluation needs no attention; an erasure was asked for."""
        return self is ManifestOutcome.ERASED or Outcome(self).ok


class SourceStatus(enum.StrEnum):
    """What RiskOS had of an evaluation when it was last asked. It says nothing about what the archive holds."""

    PRESENT = "present"
    """Every document that the archive holds."""
    PARTLY_GONE = "partly_gone"
    """Only some of the documents that the archive holds."""
    GONE = "gone"
    """None of the documents that the archive holds."""
    NONE = "none"
    """No documents, and the archive holds none."""
    UNKNOWN = "unknown"
    """RiskOS was not asked, its answer does not say, or the manifest is older than this field."""


class AtSource(enum.StrEnum):
    """Whether RiskOS had a document when it was last asked."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class ArchiveResult:
    """How an attempt ended that was not stopped.

    Attributes:
        outcome: the outcome of the evaluation.
        unchanged: what the manifest says, if the outcome is ``unchanged``.
        answer: the outcome that RiskOS's answer has by itself; None if RiskOS was not asked.
        has_written: whether a manifest was written.
        reason: why there are no documents, if a manifest was written that says so.
    """

    outcome: Outcome
    unchanged: ManifestOutcome | None = None
    answer: Outcome | None = None
    has_written: bool = False
    reason: "NoDocumentsReason | None" = None

    @property
    def ok(self) -> bool:
        """Whether the evaluation needs no attention: an unchanged one is as good as its manifest's outcome."""
        return self.unchanged.ok if self.unchanged else self.outcome.ok


EMPTY_FILE = "empty"
"""The cause of an unreadable file that has no content: that is no damage."""


class NoDocumentsReason(enum.StrEnum):
    """Why there are no documents, as far as it is known (RiskOS documentation, "Image Retrieval")."""

    MILITARY = "military"
    """Images of military IDs are deleted at once."""
    MINOR = "minor"
    """Images of persons under 18 are deleted at once."""
    NO_DOCV_STEP = "no_docv_step"
    """The evaluation ended without a DocV step, so nothing was captured."""
    RETENTION_OR_UNKNOWN = "retention_or_unknown"
    """Removed later by policy or request, or never captured."""


class Evidence(enum.StrEnum):
    """A fact about an evaluation that explains, or helps to explain, why there are no documents."""

    MILITARY_ID = "document_type:Military"
    UNDER_AGE = "reason_code:R844"
    NO_DOCV_STEP = "no_docv_step"
    """An event of its completion lists other steps only."""
    DOCV_STEP = "docv_step"
    """An event shows that there was a DocV step. It refutes ``NO_DOCV_STEP`` and explains nothing itself."""


def explaining(evidence: Iterable[str]) -> tuple[str, ...]:
    """Return the evidence that explains missing documents, each once, in order."""
    found = dict.fromkeys(map(str, evidence))
    if found.pop(Evidence.DOCV_STEP, "") is None:
        found.pop(Evidence.NO_DOCV_STEP, None)
    return tuple(found)


def reason_from(evidence: Collection[str]) -> NoDocumentsReason:
    """Return why there are no documents, as far as the evidence tells."""
    if Evidence.MILITARY_ID in evidence:
        return NoDocumentsReason.MILITARY
    if Evidence.UNDER_AGE in evidence:
        return NoDocumentsReason.MINOR
    if Evidence.NO_DOCV_STEP in evidence:
        return NoDocumentsReason.NO_DOCV_STEP
    return NoDocumentsReason.RETENTION_OR_UNKNOWN
