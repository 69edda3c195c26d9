"""A source that cannot be read as a list of evaluation IDs."""

from tasks.errors import InvalidInput


class BadSource(InvalidInput):
    """A source of evaluation IDs is not what it must be.

    Args:
        why: one sentence that says what to do; what it shows of the content is made safe to print.
        source: path, URL or ``-``; whoever opened the source adds it.
    """

    cause = "bad_source"

    def __init__(self, why: str, source: str = "") -> None:
        super().__init__(why, source)
        self.why, self.source = why, source

    def __str__(self) -> str:
        return f"{named(self.source)}: {self.why}" if self.source else self.why


def named(source: str) -> str:
    """Return a source as a sentence may name it: whole, for a path cut short is no path, and safe to print."""
    if source == "-":
        return "standard input"
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in source)
