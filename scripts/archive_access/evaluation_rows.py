"""What the archive says of evaluations: a row for each, told by its manifest alone."""

import asyncio
import csv
import hashlib
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, dataclass, fields

import orjson

from tasks.errors import IntegrityError
from tasks.model.evaluation import Evaluation
from tasks.model.outcome import EMPTY_FILE, ManifestOutcome, NoDocumentsReason, Outcome, SourceStatus
from tasks.storage.bucket import Bucket
from tasks.storage.manifest import Manifest, StoredManifest, read_manifest

MISSING = "missing"
"""What is said in the place of an outcome where nothing tells one."""
PRESENT = "present"
"""What is said where a manifest is known to be there, and was not read."""
ERASED = ManifestOutcome.ERASED.value
"""The outcome of an evaluation that was erased, whatever it was before."""
ONLY_HELD_HERE = frozenset({SourceStatus.PARTLY_GONE, SourceStatus.GONE})
"""What RiskOS had of evaluations of which only the archive has documents."""
_AT_ONCE = 64
_SOME = 1_000


@dataclass(frozen=True, slots=True)
class EvaluationRow:
    """What became of one evaluation.

    Attributes:
        eval_id: the evaluation.
        outcome: its outcome, ``erased``, ``missing``, or ``present``; in reports also ``cancelled``.
        documents: how many the archive holds, whatever RiskOS has by now.
        bytes: how large they are together.
        manifest: key of the manifest; None where there is none.
        sha256: hash of the manifest's bytes.
        archived_at: when it was made.
        cause: a short fixed word: what could not be read, or why there is no manifest: the cause of the dead letter, or
            where the evaluation stands.
        at_source: what RiskOS had when it was last asked, as its manifest says; None if none was read.
        reason: why there are no documents, as far as evidence tells; None if the outcome is another one.
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

    @property
    def is_ok(self) -> bool:
        """Whether nobody needs to look."""
        return self.outcome in {PRESENT, ERASED} or (self.outcome != MISSING and Outcome(self.outcome).ok)

    @property
    def is_damaged(self) -> bool:
        """Whether there is a manifest, but none that says anything."""
        return self.outcome == MISSING and self.manifest is not None

    def as_json(self) -> dict[str, object]:
        """Return it for a program."""
        return asdict(self)


async def read_rows(bucket: Bucket, environment: str, eval_ids: Sequence[str]) -> AsyncIterator[list[EvaluationRow]]:
    """Yield what the archive says of evaluations, in their order, some at a time.

    Raises:
        StorageError: the archive did not say.
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
    """Return what a manifest says of its evaluation."""
    manifest = committed.manifest
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
        reason=manifest.no_documents_reason,
    )


def _cause_of(manifest: Manifest) -> str | None:
    """Return what could not be read; that a file is empty only if that is all."""
    return min(
        (each.cause for each in manifest.unreadable), key=lambda cause: (cause == EMPTY_FILE, cause), default=None
    )


def write_json_lines(some: Sequence[EvaluationRow]) -> None:
    """Print rows, one JSON object a line."""
    sys.stdout.buffer.writelines(orjson.dumps(row.as_json(), option=orjson.OPT_APPEND_NEWLINE) for row in some)


def write_csv(some: Sequence[EvaluationRow]) -> None:
    """Print rows as CSV; where there are none yet, the header."""
    writer = csv.DictWriter(sys.stdout, [field.name for field in fields(EvaluationRow)], lineterminator="\n")
    if not some:
        writer.writeheader()
    writer.writerows(row.as_json() for row in some)
