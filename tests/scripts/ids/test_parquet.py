"""Parquet."""

import io
import sys
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scripts.ids.candidate import BadCandidate
from scripts.ids.errors import BadSource
from scripts.ids.parquet import read_parquet

ONE, TWO = str(uuid4()), str(uuid4())


def _read(columns: dict[str, Any], column: str | None = None, **options: Any) -> list[tuple[int, str | BadCandidate]]:
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file, **options)
    return list(read_parquet(file, column))


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.binary(), pa.dictionary(pa.int32(), pa.string())])
def test_a_text_column_of_any_type_is_read(kind: pa.DataType) -> None:
    ids = pa.array([ONE, f" {TWO} "]).cast(kind)
    assert _read({"name": ["a", "b"], "eval_id": ids}) == [(1, ONE), (2, TWO)]


def test_a_uuid_may_be_16_bytes() -> None:
    values = [UUID(ONE).bytes, UUID(TWO).bytes]
    assert _read({"eval_id": pa.array(values, pa.binary(16))}) == [(1, ONE), (2, TWO)]
    assert _read({"eval_id": pa.array(values, pa.uuid())}) == [(1, ONE), (2, TWO)]


def test_a_null_is_read_as_empty_text_and_a_number_as_a_bad_candidate() -> None:
    assert _read({"eval_id": [None, ONE, ""]}) == [(1, ""), (2, ONE), (3, "")]
    assert _read({"eval_id": [5]}) == [(1, BadCandidate("<int>", "it is not text"))]


def test_read_parquet_reads_the_requested_column_or_the_one_with_ids() -> None:
    columns = {"name": ["x", "y"], "key": [ONE, TWO]}
    assert _read(columns) == [(1, ONE), (2, TWO)]
    assert _read(columns, "name") == [(1, "x"), (2, "y")]
    with pytest.raises(BadSource, match="there is no column 'c'; give --column with one of 'name', 'key'"):
        _read(columns, "c")


def test_a_column_name_may_contain_a_dot() -> None:
    columns = {"a": [{"b": "x"}], "a.b": [ONE], "list": [[TWO]]}
    assert _read(columns, "a.b") == [(1, ONE)]


def test_a_nested_column_is_empty_when_its_parent_is_null() -> None:
    columns = {"x": ["y"] * 3, "data": [{"id": ONE, "number": 1}, None, {"id": None, "number": 1}]}
    assert _read(columns, "data.id") == [(1, ONE), (2, ""), (3, "")]
    assert _read({"a.b": [{"c.d": ONE}]}, "a.b.c.d") == [(1, ONE)]


def test_a_number_selects_one_of_two_columns_with_the_same_name() -> None:
    file = io.BytesIO()
    pq.write_table(pa.Table.from_arrays([pa.array([ONE]), pa.array([TWO])], ["id", "id"]), file)
    assert list(read_parquet(file, "2")) == [(1, TWO)]


def test_rows_are_counted_through_all_row_groups() -> None:
    ids = [str(UUID(int=number)) for number in range(50_000)]
    assert _read({"eval_id": ids}, row_group_size=7_000) == list(enumerate(ids, 1))


def test_read_parquet_yields_nothing_without_rows() -> None:
    assert _read({"eval_id": pa.array([], pa.string())}) == []


@pytest.mark.parametrize("cut", [4, 100, -1])
def test_a_truncated_parquet_file_raises_bad_source(cut: int) -> None:
    file = io.BytesIO()
    pq.write_table(pa.table({"eval_id": [str(uuid4()) for _ in range(1000)]}), file)
    with pytest.raises(BadSource, match="it begins like Parquet, but cannot be read as Parquet"):
        list(read_parquet(io.BytesIO(file.getvalue()[:cut]), None))


def test_a_damaged_parquet_page_raises_bad_source() -> None:
    file = io.BytesIO()
    pq.write_table(pa.table({"eval_id": [ONE]}), file, compression="zstd", use_dictionary=False)
    damaged = bytearray(file.getvalue())
    damaged[8:60] = b"\xff" * 52
    with pytest.raises(BadSource, match="it begins like Parquet, but cannot be read as Parquet"):
        list(read_parquet(io.BytesIO(damaged), None))


def test_read_parquet_names_the_extra_when_pyarrow_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(BadSource, match=r"needs pyarrow: install docv-archive with the extra .parquet."):
        list(read_parquet(io.BytesIO(b"PAR1"), None))
