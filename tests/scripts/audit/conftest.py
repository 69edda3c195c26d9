"""Write S3 Inventory reports as S3 does, for the objects of a test."""

import csv
import gzip
import hashlib
import io
import json
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote_plus

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from worker.config.settings import Settings

BUCKET = "kyc-archive"
_PARQUET = (
    "message s3.inventory { required binary bucket (STRING); required binary key (STRING); "
    "optional boolean is_latest; optional boolean is_delete_marker; optional int64 size; }"
)
Rows = Sequence[tuple[str, int]]


class Reports:
    """Writes reports below a folder, in the layout of S3."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def csv(self, *parts: Rows, gone: Sequence[str] = ()) -> Path:
        """Write a report with a gzipped CSV for each part; return its manifest.json."""
        files = [gzip.compress(self._lines(part, gone)) for part in parts]
        return self._report("CSV", "Bucket, Key, IsLatest, IsDeleteMarker, Size", files, "csv.gz")

    def parquet(self, *parts: Rows) -> Path:
        return self._report("Parquet", _PARQUET, [self._table(part) for part in parts], "parquet")

    @staticmethod
    def _lines(rows: Rows, gone: Sequence[str]) -> bytes:
        text = io.StringIO()
        writer = csv.writer(text, quoting=csv.QUOTE_ALL)
        for key, size in rows:
            writer.writerow([BUCKET, quote_plus(key, safe="/"), "true", "false", size])
        for key in gone:
            writer.writerow([BUCKET, quote_plus(key, safe="/"), "true", "true", ""])
            writer.writerow([BUCKET, quote_plus(key, safe="/"), "false", "false", 5])
        return text.getvalue().encode()

    @staticmethod
    def _table(rows: Rows) -> bytes:
        file = io.BytesIO()
        columns = {
            "bucket": [BUCKET for _ in rows],
            "key": [key for key, _ in rows],
            "is_latest": [True for _ in rows],
            "is_delete_marker": [False for _ in rows],
            "size": [size for _, size in rows],
        }
        pq.write_table(pa.table(columns), file)
        return file.getvalue()

    def _report(self, form: str, schema: str, files: Sequence[bytes], ending: str) -> Path:
        data, manifest = self.folder / "data", self.folder / "2026-11-23T01-00Z" / "manifest.json"
        data.mkdir()
        manifest.parent.mkdir()
        listed = []
        for number, content in enumerate(files):
            (data / f"{number}.{ending}").write_bytes(content)
            md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
            key = f"inventory/{BUCKET}/daily/data/{number}.{ending}"
            listed.append({"key": key, "size": len(content), "MD5checksum": md5})
        facts = {
            "sourceBucket": BUCKET,
            "destinationBucket": "arn:aws:s3:::reports",
            "version": "2016-11-30",
            "creationTimestamp": "1795400000000",
            "fileFormat": form,
            "fileSchema": schema,
            "files": listed,
        }
        manifest.write_text(json.dumps(facts))
        return manifest


@pytest.fixture
def reports(tmp_path: Path) -> Reports:
    folder = tmp_path / "daily"
    folder.mkdir()
    return Reports(folder)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(archive_url=f"s3://{BUCKET}/the ärchive", state_dir=tmp_path / "state")
