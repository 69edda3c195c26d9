"""The file of a plan, as JSON Lines: a header, a line for each evaluation with due documents, and the totals.

The totals come last, so that a truncated plan is detected. A name that ends in ``.gz`` compresses the file.
"""

import gzip
import hashlib
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from typing import IO, Annotated, Literal

import orjson
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from scripts.retention.assessment import AssessedDocument
from tasks.errors import BadEvalId, InvalidInput
from tasks.model.evaluation import Evaluation, parse_eval_id
from tasks.storage.manifest_records import SHA256, UTC_TIME

_GZIP = b"\x1f\x8b"
_CUT = "the plan is cut short: make it again"


class BadPlan(InvalidInput):
    """A file is not a plan, is incomplete, or is the plan of another archive.

    Args:
        why: one sentence that says what to do.
    """

    cause = "bad_plan"

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why

    def __str__(self) -> str:
        return self.why


def _check_id(value: str) -> str:
    try:
        return parse_eval_id(value)
    except BadEvalId as error:
        raise ValueError(str(error)) from None


class _PlanRecord(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PlanHeader(_PlanRecord):
    """The inputs of a plan."""

    plan: Literal["docv-archive retention"] = "docv-archive retention"
    version: Literal[1] = 1
    archive: str
    environments: tuple[str, ...]
    until: date
    made_at: str = Field(pattern=UTC_TIME)
    schedule: str = Field(pattern=SHA256)
    archiver: str


class PlannedDocument(_PlanRecord):
    """A document to dispose of."""

    kind: str
    sha256: str = Field(pattern=SHA256)
    rule: str
    due: date


class PlannedEvaluation(_PlanRecord):
    """An evaluation with documents to dispose of.

    Attributes:
        documents: documents that are due until the day of the plan.
        open: keys of certificates that do not list all of its disposals yet, because an application was interrupted.
    """

    eval_id: Annotated[str, AfterValidator(_check_id)]
    environment: Literal["production", "sandbox"]
    documents: tuple[PlannedDocument, ...] = ()
    open: tuple[str, ...] = ()

    @property
    def evaluation(self) -> Evaluation:
        """The evaluation."""
        return Evaluation(self.eval_id, self.environment)


class PlanTotals(_PlanRecord):
    """The last line: the totals."""

    evaluations: int = Field(ge=0)
    documents: int = Field(ge=0)
    bytes: int = Field(ge=0)


class PlanWriter:
    """Writes a plan, one evaluation after the other.

    Args:
        file: open for writing.
        header: the inputs of the plan.
    """

    def __init__(self, file: IO[bytes], header: PlanHeader) -> None:
        self._file, self._documents, self._evaluations = file, 0, 0
        self._write(header)

    def add(self, evaluation: Evaluation, due: Sequence[AssessedDocument], receipts: Sequence[str] = ()) -> None:
        """Write the line of an evaluation.

        Args:
            evaluation: the evaluation.
            due: its documents that are due.
            receipts: keys of certificates that do not list all of its disposals yet.
        """
        # Not with pydantic, which would take as long as reading the manifest.
        documents = [
            {"kind": each.document.kind, "sha256": each.document.sha256, "rule": each.rule, "due": each.decision.due}
            for each in due
        ]
        line = {"eval_id": evaluation.eval_id, "environment": evaluation.environment, "documents": documents}
        self._file.write(orjson.dumps({**line, "open": receipts}, option=orjson.OPT_APPEND_NEWLINE))
        self._evaluations += 1
        self._documents += len(documents)

    def finish(self, size: int) -> PlanTotals:
        """Write the totals.

        Args:
            size: total bytes of the due documents.
        """
        totals = PlanTotals(evaluations=self._evaluations, documents=self._documents, bytes=size)
        self._write(totals)
        self._file.flush()
        return totals

    def _write(self, record: _PlanRecord) -> None:
        self._file.write(record.model_dump_json().encode() + b"\n")


@dataclass(frozen=True, slots=True)
class Plan:
    """A complete plan.

    Attributes:
        header: its inputs.
        totals: the totals.
        sha256: hash of the file.
    """

    header: PlanHeader
    totals: PlanTotals
    sha256: str
    _file: IO[bytes]

    def evaluations(self) -> Iterator[PlannedEvaluation]:
        """Yield the evaluations in order; the file is read again for each call."""
        lines = _read_lines(self._file)
        next(lines)
        following = next(lines)
        for line in lines:
            yield PlannedEvaluation.model_validate_json(following)
            following = line


def read_plan(file: IO[bytes]) -> Plan:
    """Return a plan after reading all of it once.

    Args:
        file: open for reading; it has to stay open while the plan is used.

    Raises:
        BadPlan: the file is not a plan, or is incomplete.
    """
    file.seek(0)
    digest = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]  # it has readinto
    try:
        lines = _read_lines(file)
        header = PlanHeader.model_validate_json(next(lines, b""))
    except (ValidationError, OSError, EOFError, zlib.error):
        raise BadPlan("it is not a plan of this version of `docv-archive retention plan`") from None
    evaluations = documents = 0
    try:
        following = next(lines, b"")
        for line in lines:
            planned = PlannedEvaluation.model_validate_json(following)
            evaluations, documents, following = evaluations + 1, documents + len(planned.documents), line
        totals = PlanTotals.model_validate_json(following)
    except (ValidationError, OSError, EOFError, zlib.error):
        raise BadPlan(_CUT) from None
    if (totals.evaluations, totals.documents) != (evaluations, documents):
        raise BadPlan(_CUT)
    return Plan(header, totals, digest, file)


def _read_lines(file: IO[bytes]) -> Iterator[bytes]:
    file.seek(0)
    beginning = file.read(len(_GZIP))
    file.seek(0)
    if beginning == _GZIP:
        with gzip.open(file) as unpacked:
            yield from unpacked
    else:
        yield from file
