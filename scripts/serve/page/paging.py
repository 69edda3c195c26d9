"""Split long lists into pages."""

from dataclasses import dataclass

from aiohttp import web

AT_ONCE = 50
"""Rows of one page."""
_DIGITS = 12


@dataclass(frozen=True, slots=True)
class Pages:
    """The position of a page in a list.

    Attributes:
        skip: number of rows before the first one that is shown.
        total: number of all rows.
    """

    skip: int
    total: int

    @property
    def first(self) -> int:
        """Number of the first row that is shown, from 1."""
        return min(self.skip + 1, self.total)

    @property
    def last(self) -> int:
        """Number of the last one."""
        return min(self.skip + AT_ONCE, self.total)

    @property
    def before(self) -> int | None:
        """``skip`` of the previous page, if there is one."""
        return max(0, self.skip - AT_ONCE) if self.skip else None

    @property
    def after(self) -> int | None:
        """``skip`` of the next page, if there is one."""
        return self.skip + AT_ONCE if self.skip + AT_ONCE < self.total else None


def number_of(request: web.Request, name: str) -> int:
    """Return a number of the query; 0 if it is not a number, or has too many digits."""
    text = request.query.get(name, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _DIGITS else 0
