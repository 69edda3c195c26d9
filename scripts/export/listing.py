"""`names.csv`, the list of an evaluation's documents for people: the file of each, or why there is none."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from scripts.console.csv_output import BYTE_ORDER_MARK, write_row
from scripts.export.staging import open_for_owner
from tasks.model.outcome import AtSource
from tasks.storage.manifest_records import DisposedRecord, DocumentRecord

NAME = "names.csv"
_COLUMNS = ("file", "name", "kind", "media_type", "size", "sha256", "at_source", "problem", "disposed")


@dataclass(frozen=True, slots=True)
class ListedDocument:
    """A row of the listing.

    Attributes:
        file: path of the file in the folder.
        document: the document in the manifest.
        at_source: whether RiskOS had it when last asked.
        problem: why the file is not there, as a sentence; None if it is there.
    """

    file: str
    document: DocumentRecord
    at_source: AtSource
    problem: str | None = None

    def cells(self) -> tuple[object, ...]:
        """Return the cells of the row; a missing document has no file."""
        file, each = None if self.problem else self.file, self.document
        facts = each.name, each.kind, each.media_type, each.size, each.sha256
        return (file, *facts, self.at_source.value, self.problem, None)


def write_listing(folder: Path, rows: Iterable[ListedDocument], disposed: Iterable[DisposedRecord] = ()) -> None:
    """Write a row for each document, including missing ones and those that were disposed of.

    Raises:
        OSError: writing to disk fails.
    """
    with open(folder / NAME, "x", encoding="utf-8", newline="", opener=open_for_owner) as file:
        file.write(BYTE_ORDER_MARK)
        write_row(file, _COLUMNS)
        for row in rows:
            write_row(file, row.cells())
        for gone in disposed:
            write_row(file, _disposed_cells(gone))


def _disposed_cells(gone: DisposedRecord) -> tuple[object, ...]:
    when = f"on {gone.disposed_at[:10]} under the rule {gone.rule}"
    return (None, None, gone.kind, None, gone.size, gone.sha256, None, None, when)
