import gzip
import json
from pathlib import Path

import pytest

from scripts.audit.inventory_objects import InventoryObject
from scripts.audit.inventory_source import open_inventory
from scripts.ids.errors import BadSource
from tests.conftest import S3
from tests.scripts.audit.conftest import BUCKET, Reports
from worker.config.settings import Settings

ROWS = [("the ärchive/a b+c/x.jpg", 3), ("plain", 0), ('"quoted",\n', 9)]
LISTED = [InventoryObject(BUCKET, key, size) for key, size in ROWS]


def read(source: Path | str, settings: Settings) -> list[InventoryObject]:
    with open_inventory(str(source), settings) as objects:
        return list(objects)


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_report_is_read_from_all_its_files(reports: Reports, settings: Settings, form: str) -> None:
    manifest = getattr(reports, form)(ROWS[:1], ROWS[1:])
    assert read(manifest, settings) == LISTED


def test_data_files_are_found_next_to_the_manifest(reports: Reports, settings: Settings) -> None:
    manifest = reports.csv(ROWS)
    (file,) = (reports.folder / "data").iterdir()
    file.rename(manifest.parent / file.name)
    assert read(manifest, settings) == LISTED


def test_delete_markers_and_noncurrent_versions_are_skipped(reports: Reports, settings: Settings) -> None:
    assert read(reports.csv(ROWS, gone=["the ärchive/gone"]), settings) == LISTED


def test_a_report_is_read_from_s3(s3: S3, reports: Reports, settings: Settings) -> None:
    manifest = reports.csv(ROWS)
    key = f"inventory/{BUCKET}/daily"
    s3.client.upload_file(str(manifest), s3.bucket, f"{key}/2026-11-23T01-00Z/manifest.json")
    for file in (reports.folder / "data").iterdir():
        s3.client.upload_file(str(file), s3.bucket, f"{key}/data/{file.name}")
    s3_settings = settings.model_copy(update={"s3_endpoint": s3.endpoint})
    assert read(f"s3://{s3.bucket}/{key}/2026-11-23T01-00Z/manifest.json", s3_settings) == LISTED


@pytest.mark.parametrize(
    "text",
    [f"{BUCKET},a,1\n{BUCKET},b%20c,22\n", f'"Key","Bucket","Size"\n"a","{BUCKET}","1"\n"b+c","{BUCKET}","22"\n'],
)
@pytest.mark.parametrize("packed", [False, True])
def test_a_single_data_file_is_read(tmp_path: Path, settings: Settings, text: str, packed: bool) -> None:  # noqa: FBT001
    (tmp_path / "x").write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    assert read(tmp_path / "x", settings) == [InventoryObject(BUCKET, "a", 1), InventoryObject(BUCKET, "b c", 22)]


def test_sizes_are_optional(tmp_path: Path, settings: Settings) -> None:
    (tmp_path / "x").write_text(f"{BUCKET},a\n")
    assert read(tmp_path / "x", settings) == [InventoryObject(BUCKET, "a", 0)]
    (tmp_path / "x").write_text("")
    assert read(tmp_path / "x", settings) == []


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b'{"version": 1}', "not a valid manifest.json of an S3 Inventory"),
        (b"only one column\n", "without bucket and key"),
        (f"{BUCKET},a,1,true,false,3\n".encode(), "give the manifest.json"),
        (f'{BUCKET},"a\n'.encode(), "it is not a valid CSV"),
        (gzip.compress(b"a,b,1\n" * 1000, mtime=0)[:-12], "cut short"),
        (gzip.compress(b"a,b,1\n" * 1000, mtime=0)[:20] + b"x" * 40, "damaged"),
        (b"PAR1 and nothing more", "begins like Parquet"),
        (None, "cannot be read"),
    ],
)
def test_an_invalid_inventory_is_refused_in_one_sentence(
    tmp_path: Path, settings: Settings, content: bytes | None, sentence: str
) -> None:
    if content is not None:
        (tmp_path / "x").write_bytes(content)
    with pytest.raises(BadSource, match=sentence) as caught:
        read(tmp_path / "x", settings)
    assert str(caught.value).startswith(str(tmp_path / "x"))


def test_an_unsupported_format_is_refused_with_a_list_of_the_supported_ones(
    reports: Reports, settings: Settings
) -> None:
    manifest = reports.csv(ROWS)
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "fileFormat": "ORC"}))
    with pytest.raises(BadSource, match="expected CSV or Parquet"):
        read(manifest, settings)


def test_a_data_file_that_is_missing_changed_or_of_another_bucket_is_reported(
    reports: Reports, settings: Settings
) -> None:
    manifest = reports.csv(ROWS)
    (file,) = (reports.folder / "data").iterdir()
    original = file.read_bytes()
    file.write_bytes(original[:-1] + b"x")
    with pytest.raises(BadSource, match="its MD5 is not the one in its manifest"):
        read(manifest, settings)
    file.write_bytes(original)
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "sourceBucket": "another"}))
    with pytest.raises(BadSource, match="its manifest another"):
        read(manifest, settings)
    file.unlink()
    with pytest.raises(BadSource, match=r"data file 0\.csv\.gz is missing"):
        read(manifest, settings)
