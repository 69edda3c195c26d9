"""The outcomes of an evaluation, and the evidence and reasons that go with them."""

import enum
from collections.abc import Collection, Iterable
from dataclasses import dataclass


class Outcome(enum.StrEnum):
    """How an evaluation ended. The values are part of the archive's format."""

    ARCHIVED = "archived"
    """Documents and manifest were written to the archive."""
    UNCHANGED = "unchanged"
    """There was a manifest already, and nothing new was archived."""
    NO_DOCUMENTS = "no_documents"
    """RiskOS answered "No Documents Found", or there was no DocV step. RiskOS is asked again only for a new order."""
    NOT_FOUND = "not_found"
    """RiskOS does not know the evaluation."""
    REJECTED = "rejected"
    """RiskOS refused the request with another 400."""
    WITHHELD = "withheld"
    """RiskOS delivered documents that must not be kept (military, minor, or due), and none of them was stored."""
    UNREADABLE = "unreadable"
    """The bundle is damaged or unsafe, even after a second download. It is kept in quarantine."""
    FAILED = "failed"
    """No attempts are left. There is a dead letter; an earlier manifest, if any, stays."""
    CANCELLED = "cancelled"
    """An operator cancelled it before it ended. An earlier manifest, if any, stays."""

    @property
    def ok(self) -> bool:
        """Whether the evaluation needs no attention, because all its documents that may be kept are archived."""
        return self in {Outcome.ARCHIVED, Outcome.UNCHANGED, Outcome.NO_DOCUMENTS, Outcome.WITHHELD}


class ManifestOutcome(enum.StrEnum):
    """The outcome in a manifest, ``erased``, or ``disposed`` if a rule disposed of every document."""

    ARCHIVED = Outcome.ARCHIVED
    NO_DOCUMENTS = Outcome.NO_DOCUMENTS
    NOT_FOUND = Outcome.NOT_FOUND
    REJECTED = Outcome.REJECTED
    WITHHELD = Outcome.WITHHELD
    UNREADABLE = Outcome.UNREADABLE
    ERASED = "erased"
    DISPOSED = "disposed"

    @property
    def ok(self) -> bool:
        """Whether the evaluation needs no attention. Erasures and disposals are intended, so they need none."""
        return self in {ManifestOutcome.ERASED, ManifestOutcome.DISPOSED} or Outcome(self).ok


class SourceStatus(enum.StrEnum):
    """Which documents RiskOS had when it was last asked, compared with the archive."""

    PRESENT = "present"
    """Every document that the archive holds."""
    PARTLY_GONE = "partly_gone"
    """Only some of the documents that the archive holds."""
    GONE = "gone"
    """None of the documents that the archive holds, or has disposed of."""
    NONE = "none"
    """No documents, and the archive holds none."""
    UNKNOWN = "unknown"
    """RiskOS was not asked, its answer is inconclusive, or the manifest is older than this field."""


class AtSource(enum.StrEnum):
    """Whether RiskOS had a document when it was last asked."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class ArchiveResult:
    """The result of an attempt that did not fail.

    Attributes:
        outcome: the outcome of the evaluation.
        unchanged: the outcome in the manifest, if the outcome is ``unchanged``.
        answer: the outcome that follows from RiskOS's answer alone; None if RiskOS was not asked.
        has_written: whether a manifest was written.
        reason: why there are no documents, if a manifest was written that records this.
        restricted: whose images must not be kept and how they were handled, if a manifest was written that records it.
        has_stored_erased: whether objects were stored whose kind was erased during the attempt.
    """

    outcome: Outcome
    unchanged: ManifestOutcome | None = None
    answer: Outcome | None = None
    has_written: bool = False
    reason: "NoDocumentsReason | None" = None
    restricted: "tuple[Restriction, RestrictedHandling] | None" = None
    has_stored_erased: bool = False

    @property
    def ok(self) -> bool:
        """Whether the evaluation needs no attention; for an unchanged one, the outcome in its manifest decides."""
        return self.unchanged.ok if self.unchanged else self.outcome.ok


EMPTY_FILE = "empty"
"""The cause of an unreadable file without content, which is not damage."""


class Restriction(enum.StrEnum):
    """Whose images must not be kept, because RiskOS deletes them at once (its documentation, "Image Retrieval")."""

    MILITARY = "military"
    """Military IDs."""
    MINOR = "minor"
    """Persons under 18."""


class RestrictedHandling(enum.StrEnum):
    """How images that must not be kept were handled."""

    WITHHELD = "withheld"
    """They were not stored."""
    ARCHIVED = "archived"
    """They were archived with a tag and without a lock, as the settings say."""
    LATE = "late"
    """They were already archived when the evidence arrived."""


class NoDocumentsReason(enum.StrEnum):
    """Why there are no documents, as far as that is known."""

    MILITARY = Restriction.MILITARY
    MINOR = Restriction.MINOR
    NO_DOCV_STEP = "no_docv_step"
    """The evaluation ended without a DocV step, so nothing was captured."""
    NOT_COMPLETE = "not_complete"
    """The evaluation had not ended when RiskOS was asked."""
    RETENTION_OR_UNKNOWN = "retention_or_unknown"
    """They were deleted under a retention policy or on request, or never captured."""

    @property
    def is_provisional(self) -> bool:
        """Whether there may be documents later, so that a new event or order asks RiskOS again."""
        return self in {NoDocumentsReason.NO_DOCV_STEP, NoDocumentsReason.NOT_COMPLETE}


class Evidence(enum.StrEnum):
    """A fact about an evaluation that explains, or helps to explain, why there are no documents."""

    MILITARY_ID = "document_type:Military"
    UNDER_AGE = "reason_code:R844"
    NO_DOCV_STEP = "no_docv_step"
    """The evaluation ended without a DocV step."""
    DOCV_STEP = "docv_step"
    """There was a DocV step. It refutes ``NO_DOCV_STEP`` and explains nothing itself."""
    NOT_COMPLETE = "not_complete"
    """RiskOS reported that the evaluation had not ended. This is valid until RiskOS is asked again."""


def select_explaining(evidence: Iterable[str]) -> tuple[str, ...]:
    """Return the evidence that explains missing documents, in order and without duplicates."""
    found = dict.fromkeys(map(str, evidence))
    if found.pop(Evidence.DOCV_STEP, "") is None:
        found.pop(Evidence.NO_DOCV_STEP, None)
    return tuple(found)


def restriction_from(evidence: Collection[str]) -> Restriction | None:
    """Return why images of an evaluation must not be kept; None if the evidence does not say so."""
    if Evidence.MILITARY_ID in evidence:
        return Restriction.MILITARY
    return Restriction.MINOR if Evidence.UNDER_AGE in evidence else None


def reason_from(evidence: Collection[str]) -> NoDocumentsReason:
    """Return why there are no documents, according to the evidence."""
    if restriction := restriction_from(evidence):
        return NoDocumentsReason(restriction)
    if Evidence.NO_DOCV_STEP in evidence:
        return NoDocumentsReason.NO_DOCV_STEP
    if Evidence.NOT_COMPLETE in evidence:
        return NoDocumentsReason.NOT_COMPLETE
    return NoDocumentsReason.RETENTION_OR_UNKNOWN
