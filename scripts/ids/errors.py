"""A source that cannot be read as a list of evaluation IDs."""

from tasks.errors import InvalidInput


class BadSource(InvalidInput):
    """A source of evaluation IDs cannot be used.

    Args:
        why: one sentence that says what is wrong, or what to do; quoted content is safe to print.
        source: path, URL or ``-``; ``open_source`` adds it.
    """

    cause = "bad_source"

    def __init__(self, why: str, source: str = "") -> None:
        super().__init__(why, source)
        self.why, self.source = why, source

    def __str__(self) -> str:
        return f"{named(self.source)}: {self.why}" if self.source else self.why


def named(source: str) -> str:
    """Return the name of a source for a message: safe to print, and not shortened, since it may be a path."""
    if source == "-":
        return "standard input"
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in source)
