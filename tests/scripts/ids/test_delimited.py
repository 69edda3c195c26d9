"""CSV in every dialect."""

import csv
import io
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts.ids.candidate import BadCandidate
from scripts.ids.delimited import find_layout, is_delimited, read_delimited
from scripts.ids.errors import BadSource
from scripts.ids.lines import LONGEST, Lines, bounded_lines, decode_lines

ONE, TWO, THREE = (str(uuid4()) for _ in range(3))


def _read(text: str, column: str | None = None) -> list[tuple[int, str | BadCandidate]]:
    def numbered() -> Lines:
        return bounded_lines(decode_lines(io.BytesIO(text.encode()), "utf-8"))

    return list(read_delimited(numbered(), find_layout(list(numbered()), column)))


@pytest.mark.parametrize("line", ["a,b", "a;b", "a\tb", "a|b", "eval_id", '"Eval ID"'])
def test_a_line_with_cells_or_a_known_header_is_delimited(line: str) -> None:
    assert is_delimited(line)
    assert not is_delimited(ONE)


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_found_when_cells_contain_other_delimiters(delimiter: str) -> None:
    text = delimiter.join(["a.b", '"x,y;z|"', "id"]) + "\n" + delimiter.join(['"1,2;3|4\t5"', "1", ONE])
    assert _read(text) == [(2, ONE)]


def test_the_first_row_is_a_header_when_it_has_no_id() -> None:
    assert _read(f"{ONE},x\n{TWO},y") == [(1, ONE), (2, TWO)]
    assert _read(f"a,b\n{TWO},y") == [(2, TWO)]
    assert _read(f"eval_id\n{ONE}\n") == [(2, ONE)]


def test_columns_have_only_numbers_without_a_header() -> None:
    text = f"{ONE},{TWO}\n{TWO},{THREE}"
    assert _read(text, "2") == [(1, TWO), (2, THREE)]
    with pytest.raises(BadSource, match="there is no column 'eval_id'; give --column with one of '1', '2'"):
        _read(text, "eval_id")


def test_blanks_around_a_quoted_id_are_stripped() -> None:
    assert _read(f'a,eval_id\nx, "{ONE}"\nx,\t{TWO} \n') == [(2, ONE), (3, TWO)]


def test_empty_lines_are_skipped_but_empty_cells_and_short_rows_are_not() -> None:
    assert _read(f'a,eval_id\n\n  \nx,\nx\n""\nx,{ONE}') == [(4, ""), (5, ""), (6, ""), (7, ONE)]


def test_a_row_has_the_number_of_its_first_line() -> None:
    assert _read(f'a,eval_id\n"x\ny\nz",{ONE}\nb,{TWO}\n') == [(2, ONE), (5, TWO)]


@pytest.mark.parametrize(
    ("quote", "why"),
    [
        ('"never closed', "its quotes do not match"),
        ('"closed" early', "its quotes do not match"),
    ],
)
def test_a_misplaced_quote_affects_only_its_line(quote: str, why: str) -> None:
    [(first, flawed), second, third] = _read(f'a,eval_id\n{quote},{ONE}\n"x",{TWO}\ny,{THREE}')
    assert (first, second, third) == (2, (3, TWO), (4, THREE))
    assert isinstance(flawed, BadCandidate)
    assert flawed.why == why


def test_an_unclosed_quote_at_the_end_affects_only_its_line() -> None:
    [first, (number, flawed), last] = _read(f'a,eval_id\nx,{ONE}\n"y,{TWO}\nz,{THREE}')
    assert (first, number, last) == ((2, ONE), 3, (4, THREE))
    assert flawed == BadCandidate(f'"y,{TWO}\n', "a quote in it is never closed")


def test_an_unclosed_quote_affects_only_its_line_when_the_file_is_long() -> None:
    count = 3 * LONGEST // 40
    ids = [str(UUID(int=number)) for number in range(count)]
    (number, flawed), *rest = _read(f'a,eval_id\n"y,{ONE}\n' + "".join(f"x,{each}\n" for each in ids))
    assert flawed == BadCandidate(f'"y,{ONE}\n', "a quote in it is not closed within 1 MiB")
    assert (number, rest) == (2, list(enumerate(ids, 3)))


def test_a_row_is_a_bad_candidate_when_it_is_too_long() -> None:
    [(number, flawed), last] = _read(f"eval_id,a\n{ONE},{'x' * 2 * LONGEST}\n{TWO},y")
    assert isinstance(flawed, BadCandidate)
    assert (number, flawed.why, last) == (2, "it is longer than 1 MiB", (3, TWO))


def test_a_long_cell_is_read_when_it_is_within_the_limit() -> None:
    assert _read(f'eval_id,a\n{ONE},"{"x" * (LONGEST - 100)}"') == [(2, ONE)]


def test_find_layout_raises_bad_source_when_no_row_can_be_read() -> None:
    with pytest.raises(BadSource, match="none of its first rows can be read: check its quotes"):
        _read('"a" b,c\n')


@given(
    rows=st.lists(
        st.tuples(
            st.text(st.characters(codec="utf-8", exclude_characters="\r\0"), max_size=8),
            st.uuids().map(str),
            st.text(st.characters(codec="utf-8", exclude_characters="\r\0"), max_size=8),
        ),
        min_size=1,
        max_size=20,
    ),
    delimiter=st.sampled_from(",;\t|"),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]),
    end=st.sampled_from(["\n", "\r\n"]),
    header=st.integers(0, 1),
)
def test_csv_written_by_the_standard_library_is_read_back(
    rows: list[tuple[str, str, str]], delimiter: str, quoting: int, end: str, header: int
) -> None:
    file = io.StringIO(newline="")
    writer = csv.writer(file, delimiter=delimiter, quoting=quoting, lineterminator=end)  # type: ignore[arg-type]
    writer.writerows([("name", "eval_id", "other")] * header + rows)
    # Only the name of a column can decide between two columns with IDs.
    assert [text for _, text in _read(file.getvalue(), "2")] == [eval_id for _, eval_id, _ in rows]
