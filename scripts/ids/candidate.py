"""Candidates: texts that should be evaluation IDs, and lines without one."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from tasks.errors import BadEvalId
from tasks.model.evaluation import parse_eval_id, printable_id
from tasks.model.evidence import EvaluationFacts

BLANKS = " \t"
"""Characters that may surround an ID in a file."""
# `{GUID}` is how SQL Server and .NET print one; `="GUID"` keeps a spreadsheet from changing a cell.
_WRAPPED = re.compile(r'(=[ \t]*"[ \t]*)?(\{[ \t]*)?([0-9a-fA-F-]{36})(?(2)[ \t]*\})(?(1)[ \t]*")')


@dataclass(frozen=True, slots=True)
class BadCandidate:
    """A line without a candidate.

    Attributes:
        text: the line, or its beginning.
        why: what is wrong with it.
    """

    text: str
    why: str


@dataclass(frozen=True, slots=True)
class RowCandidate:
    """A text that should be an evaluation ID; subclasses add other values of its row.

    Attributes:
        text: the candidate.
    """

    text: str


@dataclass(frozen=True, slots=True)
class KnownCandidate(RowCandidate):
    """A text that should be an evaluation ID, with known facts about the evaluation.

    Attributes:
        facts: the facts in its line.
        has_bad_time: whether there is a time that cannot be read.
    """

    facts: EvaluationFacts
    has_bad_time: bool


Candidate = str | RowCandidate | BadCandidate
Candidates = Iterator[tuple[int, Candidate]]
"""Candidates with the numbers of their lines or rows, from 1."""


def parse_candidate(candidate: Candidate) -> str:
    """Return the evaluation ID of a candidate.

    Raises:
        BadEvalId: it is not a valid ID.
    """
    if isinstance(candidate, BadCandidate):
        raise BadEvalId(printable_id(candidate.text), candidate.why)
    return parse_eval_id(_unwrap(candidate.text if isinstance(candidate, RowCandidate) else candidate))


def is_id(text: str) -> bool:
    """Return whether a text of a file is an evaluation ID."""
    try:
        parse_eval_id(_unwrap(text.strip(BLANKS)))
    except BadEvalId:
        return False
    return True


def _unwrap(text: str) -> str:
    """Return the ID in ``="ID"``, ``{ID}`` or ``="{ID}"``; any other text as it is."""
    wrapped = _WRAPPED.fullmatch(text)
    return wrapped[3] if wrapped else text
