from pathlib import Path

import pytest

from scripts.ids.errors import BadSource
from scripts.report.kept_columns import read_kept_cells
from worker.config.settings import Settings

ONE, TWO, OTHER = (f"0b54a4d4-6e5b-4f3c-9d2a-7c1f0e8b9a{number:02x}" for number in range(3))


def read(path: Path, *names: str, column: str | None = None) -> tuple[tuple[str, ...], list[dict[str, str]]]:
    with read_kept_cells(str(path), names, column, Settings(state_dir=path.parent / "state")) as cells:
        return cells.names, [cells.get(each) for each in (ONE, TWO, OTHER)]


def test_columns_of_a_csv_are_found_by_name_and_by_number(tmp_path: Path) -> None:
    path = tmp_path / "customers.csv"
    path.write_text(f"customer,eval_id,note\n17,{ONE.upper()},first\n18,{TWO}\n19,{ONE},repeated\n20,no-id,x\n")
    names, rows = read(path, "Customer", "3")
    assert names == ("customer", "note")
    assert rows == [
        {"customer": "17", "note": "first"},
        {"customer": "18", "note": ""},
        {"customer": "", "note": ""},
    ]


def test_a_kept_column_is_renamed_when_the_report_has_a_column_with_its_name(tmp_path: Path) -> None:
    path = tmp_path / "customers.csv"
    path.write_text(f"outcome,eval_id\naccepted,{ONE}\n")
    assert read(path, "outcome")[1][0] == {"from.outcome": "accepted"}


def test_kept_keys_of_json_lines_may_be_nested_and_have_any_type(tmp_path: Path) -> None:
    path = tmp_path / "customers.jsonl"
    path.write_text(f'{{"id": "{ONE}", "customer": {{"no": 17}}, "tags": ["a"], "vip": true}}\n')
    _, (row, *_) = read(path, "customer.no", "tags", "vip", column="id")
    assert row == {"customer.no": "17", "tags": '["a"]', "vip": "true"}


def test_a_missing_kept_column_raises_bad_source(tmp_path: Path) -> None:
    path = tmp_path / "customers.csv"
    path.write_text(f"customer,eval_id\n17,{ONE}\n")
    with pytest.raises(BadSource, match="there is no column 'client'; give --keep with one of 'customer', 'eval_id'"):
        read(path, "client")
