import csv
from pathlib import Path

import pytest

from scripts.export.listing import ListedDocument, write_listing
from tasks.model.outcome import AtSource
from tasks.storage.manifest_records import DocumentRecord


def document(name: str, **facts: object) -> DocumentRecord:
    usual = {"kind": "selfie", "key": "k", "media_type": "image/jpeg", "size": 7, "sha256": "a" * 64, "modified": None}
    return DocumentRecord.model_validate({"name": name, **usual, **facts})


def test_each_file_is_listed_with_its_original_name(tmp_path: Path) -> None:
    first_row = ListedDocument("a_.jpg", document('a"\n.jpg'), AtSource.YES)
    write_listing(tmp_path, [first_row, ListedDocument("b.jpg", document("b.jpg"), AtSource.NO)])
    with (tmp_path / "names.csv").open(encoding="utf-8-sig", newline="") as file:
        first, second = csv.DictReader(file)
    assert (first["file"], first["name"], first["kind"], first["size"]) == ("a_.jpg", 'a"\n.jpg', "selfie", "7")
    assert (first["media_type"], first["sha256"], first["at_source"]) == ("image/jpeg", "a" * 64, "yes")
    assert second["at_source"] == "no"
    assert (first["problem"], second["problem"]) == ("", "")


def test_a_missing_document_is_listed_without_a_file_and_with_the_reason(tmp_path: Path) -> None:
    write_listing(tmp_path, [ListedDocument("b.jpg", document("b.jpg"), AtSource.NO, "it is not in the archive")])
    with (tmp_path / "names.csv").open(encoding="utf-8-sig", newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["file"], row["name"], row["sha256"]) == ("", "b.jpg", "a" * 64)
    assert row["problem"] == "it is not in the archive"


@pytest.mark.parametrize("name", ["=HYPERLINK(1)", "\uff1dHYPERLINK(1)", "\n=HYPERLINK(1)"])
def test_no_name_is_a_formula_and_excel_reads_it_as_utf_8(tmp_path: Path, name: str) -> None:
    write_listing(tmp_path, [ListedDocument("_=1.jpg", document(name), AtSource.UNKNOWN)])
    assert (tmp_path / "names.csv").read_bytes().startswith(b"\xef\xbb\xbffile,name,")
    with (tmp_path / "names.csv").open(encoding="utf-8-sig", newline="") as file:
        assert [row["name"] for row in csv.DictReader(file)] == [f"'{name}"]
