import csv
from pathlib import Path

from scripts.export.listing import write_listing
from tasks.model.outcome import AtSource
from tasks.storage.manifest import DocumentRecord


def document(name: str, **facts: object) -> DocumentRecord:
    usual = {"kind": "selfie", "key": "k", "media_type": "image/jpeg", "size": 7, "sha256": "a" * 64, "modified": None}
    return DocumentRecord.model_validate({"name": name, **usual, **facts})


def test_a_person_finds_each_file_and_the_name_it_had(tmp_path: Path) -> None:
    write_listing(tmp_path, [("a_.jpg", document('a"\n.jpg'), AtSource.YES), ("b.jpg", document("b.jpg"), AtSource.NO)])
    with (tmp_path / "names.csv").open(encoding="utf-8", newline="") as file:
        first, second = csv.DictReader(file)
    assert (first["file"], first["name"], first["kind"], first["size"]) == ("a_.jpg", 'a"\n.jpg', "selfie", "7")
    assert (first["media_type"], first["sha256"], first["at_source"]) == ("image/jpeg", "a" * 64, "yes")
    assert second["at_source"] == "no"


def test_no_name_is_taken_for_a_formula(tmp_path: Path) -> None:
    write_listing(tmp_path, [("_=1.jpg", document("=HYPERLINK(1)"), AtSource.UNKNOWN)])
    assert "'=HYPERLINK(1)" in (tmp_path / "names.csv").read_text("utf-8")
