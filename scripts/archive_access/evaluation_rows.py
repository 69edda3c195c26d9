"""Make a row for each evaluation, from its manifest in the archive only."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, dataclass, fields

from tasks.errors import IntegrityError
from tasks.model.evaluation import Evaluation
from tasks.model.outcome import EMPTY_FILE, ManifestOutcome, NoDocumentsReason, Outcome, Restriction, SourceStatus
from tasks.storage.bucket import Bucket
from tasks.storage.manifest import Manifest, StoredManifest, read_manifest

MISSING = "missing"
"""The outcome of an evaluation without a manifest that can be read."""
PRESENT = "present"
"""The outcome of an evaluation whose manifest exists but was not read."""
ERASED = ManifestOutcome.ERASED.value
"""The outcome of an evaluation that was erased, whatever it was before."""
DISPOSED = ManifestOutcome.DISPOSED.value
"""The outcome of an evaluation all of whose documents were disposed of."""
_ONLY_HELD_HERE = frozenset({SourceStatus.PARTLY_GONE, SourceStatus.GONE})
_AT_ONCE = 64
_SOME = 1_000


@dataclass(frozen=True, slots=True)
class EvaluationRow:
    """The result of one evaluation.

    Attributes:
        eval_id: the evaluation.
        outcome: its outcome, ``erased``, ``disposed``, ``missing``, or ``present``; in reports also ``cancelled``.
        documents: number of documents that the archive holds, even if RiskOS no longer has them.
        bytes: their total size.
        manifest: key of the manifest, or None.
        sha256: hash of the manifest's bytes.
        archived_at: when the manifest was made.
        cause: a short fixed word: what could not be read, or if there is no manifest, the cause of the dead letter or
            the state in the ledger.
        at_source: what RiskOS had when it was last asked, as its manifest says; None if none was read.
        reason: why there are no documents, according to evidence, or why they were withheld; else None.
        restricted: ``military`` or ``minor`` if the archive holds documents that must not be kept; else None.
        disposed: number of documents that the retention schedule disposed of; None if no manifest was read.
    """

    eval_id: str
    outcome: str
    documents: int = 0
    bytes: int = 0
    manifest: str | None = None
    sha256: str | None = None
    archived_at: str | None = None
    cause: str | None = None
    at_source: SourceStatus | None = None
    reason: NoDocumentsReason | None = None
    restricted: Restriction | None = None
    disposed: int | None = 0

    @classmethod
    def names(cls) -> list[str]:
        """Return the names of the columns, in order."""
        return [field.name for field in fields(cls)]

    @property
    def is_ok(self) -> bool:
        """Whether the outcome needs no attention."""
        is_intended = self.outcome in {PRESENT, ERASED, DISPOSED}
        return is_intended or (self.outcome != MISSING and Outcome(self.outcome).ok)

    @property
    def is_only_held_here(self) -> bool:
        """Whether the archive has documents that RiskOS no longer has."""
        return self.outcome != DISPOSED and self.at_source in _ONLY_HELD_HERE

    @property
    def is_damaged(self) -> bool:
        """Whether there is a manifest, but it cannot be read."""
        return self.outcome == MISSING and self.manifest is not None

    def as_json(self) -> dict[str, object]:
        """Return the row as a JSON object."""
        return asdict(self)


async def read_rows(bucket: Bucket, environment: str, eval_ids: Sequence[str]) -> AsyncIterator[list[EvaluationRow]]:
    """Yield the rows of evaluations in their order, some at a time.

    Raises:
        StorageError: the archive does not answer.
    """
    at_once = asyncio.Semaphore(_AT_ONCE)

    async def one(eval_id: str) -> EvaluationRow:
        async with at_once:
            return await _read_row(bucket, Evaluation(eval_id, environment))

    for start in range(0, len(eval_ids), _SOME):
        yield await asyncio.gather(*map(one, eval_ids[start : start + _SOME]))


async def _read_row(bucket: Bucket, evaluation: Evaluation) -> EvaluationRow:
    try:
        committed = await read_manifest(bucket, evaluation)
    except IntegrityError as error:
        return EvaluationRow(evaluation.eval_id, MISSING, manifest=evaluation.manifest_key, cause=error.cause)
    return make_row(evaluation, committed) if committed else EvaluationRow(evaluation.eval_id, MISSING)


def make_row(evaluation: Evaluation, committed: StoredManifest) -> EvaluationRow:
    """Return the row of a manifest's evaluation."""
    manifest = committed.manifest
    restriction = manifest.restricted.reason if manifest.restricted else None
    return EvaluationRow(
        eval_id=evaluation.eval_id,
        outcome=manifest.manifest_outcome.value,
        documents=len(manifest.documents),
        bytes=sum(document.size for document in manifest.documents),
        manifest=evaluation.manifest_key,
        sha256=hashlib.sha256(committed.stored.data).hexdigest(),
        archived_at=manifest.archived_at,
        cause=ERASED if manifest.erased else _cause_of(manifest),
        at_source=manifest.source_status,
        reason=manifest.reason,
        restricted=restriction if manifest.holds_anything else None,
        disposed=len(manifest.disposed),
    )


def _cause_of(manifest: Manifest) -> str | None:
    """Return the cause of the unreadable parts; ``empty`` only if there is no other."""
    return min(
        (each.cause for each in manifest.unreadable), key=lambda cause: (cause == EMPTY_FILE, cause), default=None
    )
