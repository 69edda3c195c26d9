"""Lines with any ending and of any length."""

import io
import tracemalloc

import pytest

from scripts.ids.candidate import BadCandidate
from scripts.ids.lines import LONGEST, bounded_lines, decode_lines, is_too_long, read_text


def _lines(content: bytes, encoding: str = "utf-8-sig") -> list[tuple[int, str]]:
    return list(bounded_lines(decode_lines(io.BytesIO(content), encoding)))


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_lines_are_split_at_the_line_ends_of_any_system(end: bytes) -> None:
    assert _lines(b"a" + end + end + b"b") == [(1, "a\n"), (2, "\n"), (3, "b")]


def test_a_byte_order_mark_is_removed_from_the_first_line() -> None:
    assert _lines(b"\xef\xbb\xbfa\n") == [(1, "a\n")]
    assert _lines("a\n".encode("utf-16"), "utf-16") == [(1, "a\n")]


def test_invalid_bytes_are_replaced() -> None:
    assert _lines(b"a\xff\nb") == [(1, "a\N{REPLACEMENT CHARACTER}\n"), (2, "b")]


@pytest.mark.parametrize(("length", "too_long"), [(LONGEST, False), (LONGEST + 1, True), (3 * LONGEST, True)])
def test_a_line_is_truncated_when_it_is_too_long(length: int, too_long: object) -> None:
    (first, long), (second, after) = _lines(b"x" * length + b"\nb")
    assert (first, second, after) == (1, 2, "b")
    assert is_too_long(long) is too_long
    assert len(long) <= LONGEST + 1


def test_the_rest_of_a_truncated_line_is_not_read_into_memory() -> None:
    class Endless(io.RawIOBase):
        left = 64 * LONGEST

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: memoryview) -> int:
            size = min(len(buffer), self.left)
            buffer[:size] = b"x" * size
            self.left -= size
            return size

    tracemalloc.start()
    try:
        [(_, line)] = bounded_lines(decode_lines(io.BufferedReader(Endless()), "utf-8"))
        assert is_too_long(line)
        assert tracemalloc.get_traced_memory()[1] < 16 * LONGEST
    finally:
        tracemalloc.stop()


def test_lines_are_stripped_and_empty_ones_skipped() -> None:
    numbered = enumerate([" a\t\n", "\n", " \n", "b"], 1)
    assert list(read_text(numbered)) == [(1, "a"), (4, "b")]


def test_a_line_is_a_bad_candidate_when_blanks_make_it_too_long(eval_id: str) -> None:
    [(_, flawed)] = read_text(iter([(1, eval_id + " " * LONGEST)]))
    assert isinstance(flawed, BadCandidate)
