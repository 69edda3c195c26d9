"""Open a source of evaluation IDs; its format is detected from the content, never from the name."""

import codecs
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from scripts.ids.candidate import Candidates
from scripts.ids.delimited import find_layout, find_separator, is_delimited, read_delimited
from scripts.ids.errors import BadSource
from scripts.ids.facts import RowColumns
from scripts.ids.json_lines import find_fact_keys, find_key, is_json_line, read_json_lines
from scripts.ids.lines import bounded_lines, decode_lines, read_text
from scripts.ids.parquet import MAGIC, read_parquet
from scripts.ids.scratch import scratch_folder
from scripts.ids.stream import Stream, open_stream, seekable_copy
from worker.config.settings import Settings

_DOCUMENT = re.compile(r"\[$|\{$|\[\s*[\[{\"]")


@contextmanager
def open_source(
    source: str, *, column: str | None, settings: Settings | None, facts: RowColumns | None = None
) -> Iterator[Candidates]:
    """Yield the candidates of a source, with the numbers of their lines or rows, from 1.

    Args:
        source: a path, ``-`` for standard input, or ``s3://bucket/key``; each may be gzip.
        column: name, or number from 1, of the column or key with the IDs; None to detect it.
        facts: other columns or keys to read; if there are such columns, candidates have their values.
        settings: name the S3 endpoint and the folder for temporary files; None for the defaults.

    Raises:
        BadSource: it cannot be read, then or later, or is not a list of IDs.
        ServiceUnavailable: S3, or this machine's disk, fails.
        SettingsError: there are no credentials for S3.
    """
    try:
        with open_stream(source, settings) as stream, _candidates(stream, column, facts, settings) as candidates:
            yield candidates
    except BadSource as error:
        raise BadSource(error.why, error.source or source) from None


@contextmanager
def _candidates(
    stream: Stream, column: str | None, facts: RowColumns | None, settings: Settings | None
) -> Iterator[Candidates]:
    if stream.head.startswith(MAGIC):
        with seekable_copy(stream.file, scratch_folder(settings)) as copy:
            yield read_parquet(copy, column, facts)
    else:
        encoding = _detect_encoding(stream.head)
        head = list(bounded_lines(decode_lines(io.BytesIO(stream.head), encoding)))
        with decode_lines(stream.file, encoding) as text:
            yield _read_lines(head, text, column, facts)


def _detect_encoding(head: bytes) -> str:
    """Return the encoding of a text: UTF-8, unless it begins as UTF-16.

    Raises:
        BadSource: it is not a text.
    """
    encoding = "utf-16" if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    if "\0" in head.decode(encoding, errors="replace"):
        raise BadSource("it is binary; expected text, CSV, JSON Lines or Parquet; save a spreadsheet as CSV")
    return encoding


def _read_lines(head: list[tuple[int, str]], text: TextIO, column: str | None, facts: RowColumns | None) -> Candidates:
    lines = bounded_lines(text)
    separator = find_separator(head[0][1]) if head else None
    if separator:
        head = head[1:]
        next(lines)
    first = next((line.strip() for _, line in head if not line.isspace()), "")
    if first and separator:
        return read_delimited(lines, find_layout(head, column, facts, separator))
    if _DOCUMENT.match(first):
        raise BadSource("it is one JSON document; expected JSON Lines, one object per line: jq -c '.[]' makes them")
    if is_json_line(first, column):
        return read_json_lines(lines, find_key(head, column), find_fact_keys(head, facts) if facts else None)
    is_table = column is not None or (facts is not None and facts.are_requested)
    if first and (is_table or is_delimited(first)):
        return read_delimited(lines, find_layout(head, column, facts))
    return read_text(lines)
