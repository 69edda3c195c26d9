"""Long lists in pages: which one is asked for, and which are beside it."""

from dataclasses import dataclass

from aiohttp import web

AT_ONCE = 50
"""Lines of one page."""
_DIGITS = 12


@dataclass(frozen=True, slots=True)
class Pages:
    """Where in a list we are.

    Attributes:
        skip: how many lines come before the first one that is shown.
        total: how many there are.
    """

    skip: int
    total: int

    @property
    def first(self) -> int:
        """Number of the first line that is shown, from 1."""
        return min(self.skip + 1, self.total)

    @property
    def last(self) -> int:
        """Number of the last one."""
        return min(self.skip + AT_ONCE, self.total)

    @property
    def before(self) -> int | None:
        """How many to skip for the page before, if there is one."""
        return max(0, self.skip - AT_ONCE) if self.skip else None

    @property
    def after(self) -> int | None:
        """How many to skip for the page after, if there is one."""
        return self.skip + AT_ONCE if self.skip + AT_ONCE < self.total else None


def number_of(request: web.Request, name: str) -> int:
    """Return a number out of the address; what is none, or too long to be meant, is 0."""
    text = request.query.get(name, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _DIGITS else 0
