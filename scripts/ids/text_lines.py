"""A text with an evaluation ID a line."""

from scripts.ids.candidate import BLANKS, BadCandidate, Candidates
from scripts.ids.lines import TOO_LONG, Lines, is_too_long


def read_text(numbered: Lines) -> Candidates:
    """Yield what stands on each line that is not empty."""
    for number, line in numbered:
        if is_too_long(line):
            yield number, BadCandidate(line, TOO_LONG)
        elif text := line.strip(BLANKS + "\n"):
            yield number, text
