"""`names.csv`: which file is which document, for a person with a spreadsheet."""

import csv
from collections.abc import Iterable
from pathlib import Path

from scripts.console.formatting import csv_safe
from scripts.export.staging import open_for_owner
from tasks.model.outcome import AtSource
from tasks.storage.manifest import DocumentRecord

NAME = "names.csv"
_COLUMNS = ("file", "name", "kind", "media_type", "size", "sha256", "at_source")


def write_listing(folder: Path, rows: Iterable[tuple[str, DocumentRecord, AtSource]]) -> None:
    """Write a row for each file: the name is the one in the bundle, and whether RiskOS had it when last asked.

    Raises:
        OSError: the disk does not take it.
    """
    with open(folder / NAME, "x", encoding="utf-8", newline="", opener=open_for_owner) as file:
        # Else Python 3.11 leaves a carriage return bare, and a row ends in the middle of a name.
        writer = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL)
        writer.writerow(_COLUMNS)
        for path, each, at_source in rows:
            cells = each.name, each.kind, each.media_type, str(each.size), each.sha256, at_source.value
            writer.writerow((path, *map(csv_safe, cells)))
