"""A text that stands where an evaluation ID should, or why there is none."""

from collections.abc import Iterator
from dataclasses import dataclass

from tasks.errors import BadEvalId
from tasks.model.evaluation import parse_eval_id, printable_id
from tasks.model.evidence import EvaluationFacts

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


@dataclass(frozen=True, slots=True)
class KnownCandidate:
    """A text that stands where an evaluation ID should, beside what is known of the evaluation.

    Attributes:
        text: the candidate.
        facts: what its line says of it.
        has_bad_time: whether there is a time that cannot be read.
    """

    text: str
    facts: EvaluationFacts
    has_bad_time: bool


Candidate = str | KnownCandidate | BadCandidate
Candidates = Iterator[tuple[int, Candidate]]
"""Each candidate with its line or row, counted from 1."""


def parse_candidate(candidate: Candidate) -> str:
    """Return the evaluation ID that a candidate is.

    Raises:
        BadEvalId: it is none.
    """
    if isinstance(candidate, BadCandidate):
        raise BadEvalId(printable_id(candidate.text), candidate.why)
    return parse_eval_id(candidate.text if isinstance(candidate, KnownCandidate) else candidate)


def is_id(text: str) -> bool:
    """Whether a text out of a file is an evaluation ID."""
    try:
        parse_eval_id(text.strip(BLANKS))
    except BadEvalId:
        return False
    return True
