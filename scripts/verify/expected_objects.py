"""What manifests claim to be in the archive; a key that is not their own is named, and never followed."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from scripts.verify.problems import Difference, Problem
from scripts.verify.record import ManifestRecord
from tasks.bundle.documents import Kind, source_of
from tasks.bundle.media_type import extension_of
from tasks.model.evaluation import Evaluation
from tasks.model.outcome import Outcome
from tasks.storage.encryption import sealed_size
from tasks.storage.manifest import DocumentRecord

_KINDS = frozenset(Kind)
_EXTENSION = re.compile(r"[a-z0-9]{1,8}")


@dataclass(frozen=True, slots=True)
class ExpectedObject:
    """An object that must be there.

    Attributes:
        key: where.
        size: bytes.
        sha256: hash of its bytes.
        metadata: what S3 keeps beside it.
        tags: what each tag may be.
        locked: whether it is one of those that Object Lock is for.
        sealed_with: ID of the key that it is sealed with; None where it is as it came.
    """

    key: str
    size: int
    sha256: str
    metadata: Mapping[str, str]
    tags: Mapping[str, frozenset[str]] = field(default_factory=dict)
    locked: bool = False
    sealed_with: str | None = None

    @property
    def size_there(self) -> int:
        """Bytes that the object has."""
        return self.size if self.sealed_with is None else sealed_size(self.size, self.sealed_with)


@dataclass(slots=True)
class ExpectedObjects:
    """What an evaluation's manifests claim.

    Attributes:
        documents: each once, by its key.
        bundles: what must be in quarantine.
        differences: what they must not claim.
    """

    documents: dict[str, ExpectedObject] = field(default_factory=dict)
    bundles: list[ExpectedObject] = field(default_factory=list)
    differences: list[Difference] = field(default_factory=list)


def expected_objects(evaluation: Evaluation, records: Sequence[ManifestRecord]) -> ExpectedObjects:
    """Return what the manifests of an evaluation claim, the current one first."""
    claims = ExpectedObjects()
    sources = _sources(records)
    for number, record in enumerate(records):
        for document in record.manifest.documents:
            if wrong := _wrong_key(evaluation, document):
                claims.differences.append(wrong)
            elif document.key not in claims.documents:
                claims.documents[document.key] = _expect_document(evaluation, document, sources[document.key])
                if number:
                    detail = f"revision {record.manifest.revision} names it, and the manifest does not any more"
                    claims.differences.append(
                        Difference(evaluation.eval_id, document.key, Problem.REVISION_DIFFERS, detail)
                    )
        if record.manifest.outcome is Outcome.UNREADABLE and not record.manifest.erased:
            _expect_bundle(claims, evaluation, record)
    return claims


def _sources(records: Iterable[ManifestRecord]) -> dict[str, frozenset[str]]:
    """Return who may have put each document there: the same content may have been in a bundle under several names."""
    found: dict[str, frozenset[str]] = {}
    for record in records:
        for document in record.manifest.documents:
            found[document.key] = found.get(document.key, frozenset()) | {source_of(document.name).value}
    return found


def _wrong_key(evaluation: Evaluation, document: DocumentRecord) -> Difference | None:
    parts = document.key.split("/")
    if parts[:2] != [evaluation.environment, evaluation.eval_id] or not {"", ".", ".."}.isdisjoint(parts):
        problem, detail = Problem.KEY_OUTSIDE, "a manifest names it that is not its evaluation's; it was not followed"
    elif document.kind not in _KINDS or document.key != _own_key(evaluation, document):
        problem, detail = Problem.KEY_WRONG, "kind, hash and media type make another key; it was not followed"
    else:
        return None
    return Difference(evaluation.eval_id, document.key, problem, detail)


def _own_key(evaluation: Evaluation, document: DocumentRecord) -> str | None:
    try:
        extension = extension_of(document.media_type)
    except KeyError:
        # A later version may vouch for more media types.
        extension = document.key.rpartition(".")[2]
        if not _EXTENSION.fullmatch(extension):
            return None
    return evaluation.document_key(document.kind, document.sha256, extension)


def _expect_document(evaluation: Evaluation, document: DocumentRecord, sources: frozenset[str]) -> ExpectedObject:
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
        locked=True,
        sealed_with=document.sealed_with,
    )


def _expect_bundle(expected: ExpectedObjects, evaluation: Evaluation, record: ManifestRecord) -> None:
    bundle = record.manifest.bundle
    if bundle is None:
        detail = "it says unreadable, and names no bundle"
        expected.differences.append(Difference(evaluation.eval_id, record.key, Problem.MANIFEST_DAMAGED, detail))
        return
    key = evaluation.quarantine_key(bundle.sha256)
    if any(claim.key == key for claim in expected.bundles):
        return
    metadata = {"eval-id": evaluation.eval_id, "sha256": bundle.sha256}
    expected.bundles.append(ExpectedObject(key, bundle.size, bundle.sha256, metadata, sealed_with=bundle.sealed_with))
