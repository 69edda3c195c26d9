"""Collect the objects that manifests claim. A foreign key is a difference and is never read."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from scripts.verify.problems import Difference, Problem
from scripts.verify.record import ManifestRecord
from tasks.bundle.documents import Kind, source_of
from tasks.model.evaluation import Evaluation
from tasks.model.outcome import ManifestOutcome
from tasks.storage.encryption import sealed_size
from tasks.storage.manifest_records import DisposedRecord, DocumentRecord

_KINDS = frozenset(Kind)


@dataclass(frozen=True, slots=True)
class ExpectedObject:
    """An object that must exist.

    Attributes:
        key: its key.
        size: its size in bytes.
        sha256: hash of its bytes.
        metadata: its user metadata in S3.
        tags: allowed values of each tag.
        locked: whether Object Lock applies to it.
        sealed_with: ID of the key that it is sealed with; None if it is not sealed.
    """

    key: str
    size: int
    sha256: str
    metadata: Mapping[str, str]
    tags: Mapping[str, frozenset[str]] = field(default_factory=dict)
    locked: bool = False
    sealed_with: str | None = None

    @property
    def stored_size(self) -> int:
        """Size of the stored object in bytes."""
        return self.size if self.sealed_with is None else sealed_size(self.size, self.sealed_with)


@dataclass(slots=True)
class ExpectedObjects:
    """The objects that an evaluation's manifests claim.

    Attributes:
        documents: documents by key.
        disposed: documents that were disposed of, by key.
        bundles: bundles that must be in quarantine.
        differences: claims that are not allowed.
    """

    documents: dict[str, ExpectedObject] = field(default_factory=dict)
    disposed: dict[str, DisposedRecord] = field(default_factory=dict)
    bundles: list[ExpectedObject] = field(default_factory=list)
    differences: list[Difference] = field(default_factory=list)


def expected_objects(evaluation: Evaluation, records: Sequence[ManifestRecord]) -> ExpectedObjects:
    """Return the objects that the manifests of an evaluation claim, those of the current one first."""
    claims = ExpectedObjects()
    sources = _sources(records)
    if records:
        _add_disposed(claims, evaluation, records[0])
    for number, record in enumerate(records):
        for document in record.manifest.documents:
            if wrong := _wrong_key(evaluation, document):
                claims.differences.append(wrong)
            elif document.key not in claims.documents and document.key not in claims.disposed:
                # Images that must not be kept are not locked, except those that came before the evidence.
                locked = record.manifest.restricted is None
                claims.documents[document.key] = _expect_document(
                    evaluation, document, sources[document.key], locked=locked
                )
                if number:
                    detail = f"revision {record.manifest.revision} lists it, but the current manifest does not"
                    claims.differences.append(
                        Difference(evaluation.eval_id, document.key, Problem.REVISION_DIFFERS, detail)
                    )
        _expect_bundles(claims, evaluation, record)
    return claims


def _add_disposed(claims: ExpectedObjects, evaluation: Evaluation, record: ManifestRecord) -> None:
    for document in record.manifest.disposed:
        if wrong := _wrong_key(evaluation, document):
            claims.differences.append(wrong)
        else:
            claims.disposed[document.key] = document
    disposed = {document.sha256 for document in record.manifest.disposed}
    if any(document.sha256 in disposed for document in record.manifest.documents):
        detail = "it lists the same document as held and as disposed of"
        claims.differences.append(Difference(evaluation.eval_id, record.key, Problem.MANIFEST_DAMAGED, detail))


def _sources(records: Iterable[ManifestRecord]) -> dict[str, frozenset[str]]:
    """Return the possible sources of each document: a bundle may have the same content under several names."""
    found: dict[str, frozenset[str]] = {}
    for record in records:
        for document in record.manifest.documents:
            found[document.key] = found.get(document.key, frozenset()) | {source_of(document.name).value}
    return found


def _wrong_key(evaluation: Evaluation, document: DocumentRecord | DisposedRecord) -> Difference | None:
    parts = document.key.split("/")
    if parts[:2] != [evaluation.environment, evaluation.eval_id] or not {"", ".", ".."}.isdisjoint(parts):
        problem, detail = (
            Problem.KEY_OUTSIDE,
            "a manifest lists this key, which is not its evaluation's; it was not read",
        )
    elif document.kind not in _KINDS or not evaluation.is_document_key(document.key, document.kind, document.sha256):
        problem, detail = Problem.KEY_WRONG, "it does not match the kind and hash in the manifest; it was not read"
    else:
        return None
    return Difference(evaluation.eval_id, document.key, problem, detail)


def _expect_document(
    evaluation: Evaluation, document: DocumentRecord, sources: frozenset[str], *, locked: bool
) -> ExpectedObject:
    return ExpectedObject(
        key=document.key,
        size=document.size,
        sha256=document.sha256,
        metadata={"eval-id": evaluation.eval_id, "sha256": document.sha256, "document-kind": document.kind},
        tags={
            "environment": frozenset({evaluation.environment}),
            "document-kind": frozenset({document.kind}),
            "source": sources,
        },
        locked=locked,
        sealed_with=document.sealed_with,
    )


def _expect_bundles(expected: ExpectedObjects, evaluation: Evaluation, record: ManifestRecord) -> None:
    bundles = record.manifest.quarantined_bundles
    if record.manifest.manifest_outcome is ManifestOutcome.UNREADABLE and not bundles:
        detail = "its outcome is unreadable, but it lists no bundle"
        expected.differences.append(Difference(evaluation.eval_id, record.key, Problem.MANIFEST_DAMAGED, detail))
    for bundle in bundles:
        key = evaluation.quarantine_key(bundle.sha256)
        if all(each.key != key for each in expected.bundles):
            metadata = {"eval-id": evaluation.eval_id, "sha256": bundle.sha256}
            claim = ExpectedObject(key, bundle.size, bundle.sha256, metadata, sealed_with=bundle.sealed_with)
            expected.bundles.append(claim)
