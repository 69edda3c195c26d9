"""CSV and JSON output, without spreadsheet formulas in the CSV."""

import csv
import io

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts.console.csv_output import choose_writer, make_inert, write_row

SIGNS = "=+-@\uff1d\uff0b\uff0d\uff20\ufe66\ufe62\ufe63\ufe6b\u2212"


@pytest.mark.parametrize("before", ["", "\t", "\r", "\n", " ", "\u3000", "\u200b", "\ufeff", "\u202e", '"', "\0"])
def test_a_cell_that_begins_with_a_formula_sign_is_text(before: str) -> None:
    for sign in SIGNS:
        assert make_inert(f"{before}{sign}1+1") == f"'{before}{sign}1+1"


@pytest.mark.parametrize("cell", ["\tx", "\rx", "\nx"])
def test_a_cell_that_begins_with_a_tab_or_a_line_break_is_text(cell: str) -> None:
    assert make_inert(cell) == f"'{cell}"


@pytest.mark.parametrize(
    ("separator", "inert"), [(";", ";'"), ("\r", "\r'"), ("\n\n", "\n\n'"), ("\r\n", "\r\n'"), ("; ", ";' ")]
)
def test_a_formula_sign_is_text_after_a_character_that_ends_a_cell_in_other_programs(
    separator: str, inert: str
) -> None:
    for sign in SIGNS:
        assert make_inert(f"a{separator}{sign}1") == f"a{inert}{sign}1"


@pytest.mark.parametrize(
    "cell", ["", "front.jpg", "a=b", "a;b", "driver's_license", "a\nb", " a", "2026-11-29", "x,-y"]
)
def test_any_other_cell_is_unchanged(cell: str) -> None:
    assert make_inert(cell) == cell


@given(st.lists(st.text(st.characters(codec="utf-8")), min_size=1, max_size=4))
def test_a_row_is_read_back_as_one_row_of_inert_cells(cells: list[str]) -> None:
    file = io.StringIO(newline="")
    write_row(file, cells)
    (row,) = csv.reader(io.StringIO(file.getvalue(), newline=""), strict=True)
    assert row == [make_inert(cell) for cell in cells]
    assert [make_inert(cell) for cell in row] == row


def test_a_byte_order_mark_is_written_once_and_only_for_excel(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    for excel in (True, False):
        write = choose_writer(["a", "b"], as_json=False, excel=excel)
        write([])
        write([{"a": "=1", "b": None}])
    assert capsysbinary.readouterr().out == b"\xef\xbb\xbfa,b\n'=1,\na,b\n'=1,\n"


def test_json_has_unchanged_values_and_no_byte_order_mark(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    write = choose_writer(["a"], as_json=True, excel=False)
    write([])
    write([{"a": "=1"}])
    assert capsysbinary.readouterr().out == b'{"a":"=1"}\n'
    with pytest.raises(click.UsageError, match="--excel is for CSV"):
        choose_writer(["a"], as_json=True, excel=True)
