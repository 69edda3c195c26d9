"""Lists of IDs are read in any format and from any source."""

import gzip
import io
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scripts.ids.candidate import BadCandidate, parse_candidate
from scripts.ids.errors import BadSource
from scripts.ids.source import open_source
from tests.conftest import S3
from worker.config.settings import Settings

IDS = [str(UUID(int=number << 64)) for number in range(1, 4)]


def _parquet() -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.table({"name": ["a", "b", "c"], "eval_id": IDS}), file)
    return file.getvalue()


def _csv(delimiter: str) -> str:
    return f"name{delimiter}eval_id\n" + "".join(f"a{delimiter}{each}\n" for each in IDS)


FORMATS = {
    "text": "\n".join(IDS).encode(),
    "text with a byte order mark": b"\xef\xbb\xbf" + "\r\n".join(IDS).encode(),
    "text in UTF-16": "\r\n".join(IDS).encode("utf-16"),
    "text after empty lines": ("\n \n" + "\n".join(IDS)).encode(),
    "csv": _csv(",").encode(),
    "csv with a byte order mark": b"\xef\xbb\xbf" + _csv(";").replace("\n", "\r\n").encode(),
    "csv in UTF-16": _csv("\t").encode("utf-16"),
    "csv with one column": ("eval_id\n" + "\n".join(IDS)).encode(),
    "csv with one column, quoted": "".join(f'"{each}"\n' for each in ["eval_id", *IDS]).encode(),
    "csv without a header": "".join(f"{each},x\n" for each in IDS).encode(),
    "csv for excel": ("sep=|\n" + _csv("|")).encode(),
    "csv for excel with another delimiter": ('"SEP=^"\r\n' + _csv("^")).encode(),
    "csv for excel with a byte order mark": b"\xef\xbb\xbfsep=\t\r\n" + _csv("\t").encode(),
    "csv for excel without a header": b"sep=;\n" + "".join(f"a,b;{each}\n" for each in IDS).encode(),
    "csv for excel with one column": ("sep=,\n" + "\n".join(IDS)).encode(),
    "csv for excel in UTF-16": ("sep=;\r\n" + _csv(";")).encode("utf-16"),
    "json lines": "".join(json.dumps({"name": "a, b", "eval_id": each}) + "\n" for each in IDS).encode(),
    "json strings": "".join(json.dumps(each) + "\n" for each in IDS).encode(),
    "parquet": _parquet(),
}
WRAPPED = {
    "text of formulas": "\n".join(f'="{each}"' for each in IDS).encode(),
    "text with braces": "\n".join(f"{{{each.upper()}}}" for each in IDS).encode(),
    "csv of quoted formulas": ("a,eval_id\n" + "".join(f'1,"=""{each}"""\n' for each in IDS)).encode(),
    "csv with braces without a header": "".join(f"x;{{{each}}}\n" for each in IDS).encode(),
    "json strings with braces": "".join(json.dumps(f"{{{each}}}") + "\n" for each in IDS).encode(),
}


def _read(source: Path | str, column: str | None = None, settings: Settings | None = None) -> list[str | BadCandidate]:
    with open_source(str(source), column=column, settings=settings) as candidates:
        return [candidate for _, candidate in candidates]


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
@pytest.mark.parametrize("content", FORMATS.values(), ids=FORMATS)
def test_every_format_is_detected_by_its_content(
    tmp_path: Path, settings: Settings, content: bytes, pack: Callable[[bytes], bytes]
) -> None:
    (tmp_path / "list.xyz").write_bytes(pack(content))
    assert _read(tmp_path / "list.xyz", settings=settings) == IDS


@pytest.mark.parametrize("content", FORMATS.values(), ids=FORMATS)
def test_every_format_is_read_from_a_pipe(tmp_path: Path, content: bytes) -> None:
    os.mkfifo(tmp_path / "pipe")
    thread = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=[content])
    thread.start()
    assert _read(tmp_path / "pipe") == IDS
    thread.join()


@pytest.mark.parametrize("content", FORMATS.values(), ids=FORMATS)
def test_every_format_is_read_from_standard_input(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
    assert _read("-") == IDS


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_list_is_read_from_s3(s3: S3, tmp_path: Path, kind: str) -> None:
    settings = Settings(state_dir=tmp_path / "state", s3_endpoint=s3.endpoint)
    s3.client.put_object(Bucket=s3.bucket, Key="lists/ids", Body=gzip.compress(FORMATS[kind]))
    assert _read(f"s3://{s3.bucket}/lists/ids", settings=settings) == IDS
    assert list((tmp_path / "state" / "private" / "spool").iterdir()) == []
    with pytest.raises(BadSource, match=r"^s3://.*/lists/no: there is no such object in the bucket$"):
        _read(f"s3://{s3.bucket}/lists/no", settings=settings)


def test_a_column_can_be_requested_in_every_format(tmp_path: Path) -> None:
    for name in ("csv", "json lines", "parquet"):
        (tmp_path / "list").write_bytes(FORMATS[name])
        first, *_ = _read(tmp_path / "list", "name")
        assert first in {"a", "a, b"}
    (tmp_path / "list").write_bytes(FORMATS["text"])
    assert _read(tmp_path / "list", "1") == IDS


@pytest.mark.parametrize("content", WRAPPED.values(), ids=WRAPPED)
def test_ids_in_braces_and_in_formulas_are_read_in_every_format(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "list").write_bytes(content)
    with open_source(str(tmp_path / "list"), column=None, settings=None) as candidates:
        assert [parse_candidate(candidate) for _, candidate in candidates] == IDS


def test_lines_after_a_separator_line_keep_their_numbers(tmp_path: Path) -> None:
    (tmp_path / "list").write_text(f"sep=;\nid;name\n{IDS[0]};a\nx;b\n")
    with open_source(str(tmp_path / "list"), column="id", settings=None) as candidates:
        assert list(candidates) == [(3, IDS[0]), (4, "x")]


def test_a_nested_column_can_be_requested_in_json_lines_and_parquet(tmp_path: Path) -> None:
    rows = [{"data": {"evaluation": {"eval_id": each, "at": 1}}, "eval_id": "x"} for each in IDS]
    (tmp_path / "json").write_text("".join(json.dumps(each) + "\n" for each in rows))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "parquet")
    for name in ("json", "parquet"):
        assert _read(tmp_path / name, "data.evaluation.eval_id") == IDS
        assert _read(tmp_path / name, "Data.Evaluation.EvalID") == IDS
        with pytest.raises(
            BadSource, match=r"one of 'data', 'eval_id', 'data\.evaluation', 'data\.evaluation\.eval_id'"
        ):
            _read(tmp_path / name, "data.nope")


@pytest.mark.parametrize("name", ["csv", "json lines", "parquet", "text"])
def test_a_missing_column_raises_bad_source_in_every_format(tmp_path: Path, name: str) -> None:
    (tmp_path / "list").write_bytes(FORMATS[name])
    with pytest.raises(BadSource, match="list: there is no column 'nope'; give --column with one of '"):
        _read(tmp_path / "list", "nope")


@pytest.mark.parametrize(
    "content", [bytes(range(256)), b"PK\x03\x04\x14\x00\x00\x00", b"a\n" * 100 + b"\0", f"{IDS[0]}\n".encode("utf-32")]
)
def test_binary_content_raises_bad_source(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "list.csv").write_bytes(content)
    with pytest.raises(BadSource, match=r"list\.csv: it is binary; expected text, CSV"):
        _read(tmp_path / "list.csv")


@pytest.mark.parametrize("content", ['[{"eval_id": "x"}]', "[\n{}\n]", '{\n"a": 1}', f'["{IDS[0]}"]'])
def test_a_json_document_raises_bad_source(tmp_path: Path, content: str) -> None:
    (tmp_path / "list.json").write_text(content)
    with pytest.raises(BadSource, match="one JSON document; expected JSON Lines"):
        _read(tmp_path / "list.json")


@pytest.mark.parametrize("column", [None, "eval_id"])
@pytest.mark.parametrize("content", ["", "\n \n", "\ufeff", "sep=;\n"])
def test_an_empty_source_has_no_candidates(tmp_path: Path, content: str, column: str | None) -> None:
    (tmp_path / "list").write_text(content)
    assert _read(tmp_path / "list", column) == []


def test_a_truncated_gzip_list_raises_bad_source(tmp_path: Path) -> None:
    text = "".join(f"{UUID(int=number)}\n" for number in range(100_000))
    (tmp_path / "list.gz").write_bytes(gzip.compress(text.encode())[:-100])
    with (
        open_source(str(tmp_path / "list.gz"), column=None, settings=None) as candidates,
        pytest.raises(BadSource, match="the gzip file is truncated"),
    ):
        assert sum(1 for _ in candidates) == 0


def test_an_error_in_the_calling_code_is_not_translated(tmp_path: Path) -> None:
    (tmp_path / "list").write_bytes(FORMATS["text"])

    def read_and_fail() -> None:
        with open_source(str(tmp_path / "list"), column=None, settings=None) as candidates:
            for _ in candidates:
                raise FileNotFoundError

    with pytest.raises(FileNotFoundError):
        read_and_fail()
