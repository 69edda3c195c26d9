"""A text that stands where an evaluation ID should, or why there is none."""

from collections.abc import Iterator
from dataclasses import dataclass

from tasks.errors import BadEvalId
from tasks.model.evaluation import parse_eval_id, printable_id

BLANKS = " \t"
"""What may stand around an ID in a file."""


@dataclass(frozen=True, slots=True)
class BadCandidate:
    """A line out of which no candidate can be read.

    Attributes:
        text: the line, or its beginning.
        why: what is wrong with it.
    """

    text: str
    why: str


Candidates = Iterator[tuple[int, str | BadCandidate]]
"""Each candidate with its line or row, counted from 1."""


def parse_candidate(candidate: str | BadCandidate) -> str:
    """Return the evaluation ID that a candidate is.

    Raises:
        BadEvalId: it is none.
    """
    if isinstance(candidate, BadCandidate):
        raise BadEvalId(printable_id(candidate.text), candidate.why)
    return parse_eval_id(candidate)


def is_id(text: str) -> bool:
    """Whether a text out of a file is an evaluation ID."""
    try:
        parse_eval_id(text.strip(BLANKS))
    except BadEvalId:
        return False
    return True
