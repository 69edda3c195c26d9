"""Periods of a retention schedule, such as ``5y`` or ``90d``, added to dates as a calendar does."""

import re
from dataclasses import dataclass
from datetime import date, timedelta

_TEXT = re.compile(r"([1-9][0-9]{0,4})(y|mo|d)", re.ASCII)
_MAX_DAYS = 36_525
_DAYS = {"y": 365.25, "mo": 30.5, "d": 1}


@dataclass(frozen=True, slots=True)
class Period:
    """A number of years, months or days.

    Attributes:
        count: how many.
        unit: ``y``, ``mo`` or ``d``.
    """

    count: int
    unit: str

    @classmethod
    def parse(cls, text: object) -> "Period":
        """Return the period that a text such as ``5y``, ``18mo`` or ``90d`` names.

        Raises:
            ValueError: the text is not a period of at most a hundred years.
        """
        found = _TEXT.fullmatch(text) if isinstance(text, str) else None
        if found is None:
            raise ValueError("expected a number and a unit, such as 5y, 18mo or 90d")
        period = cls(int(found[1]), found[2])
        if period.count * _DAYS[period.unit] > _MAX_DAYS:
            raise ValueError("expected a period of at most 100y")
        return period

    def first_day_after(self, start: date) -> date:
        """Return the first day that lies completely after the period, at whatever time of its first day it begins.

        A day that a month does not have becomes the first day of the next month: a year after February 29 ends with
        March 1. So no period ends early.
        """
        return self._same_day_later(start) + timedelta(days=1)

    def _same_day_later(self, start: date) -> date:
        if self.unit == "d":
            return start + timedelta(days=self.count)
        months = start.month - 1 + self.count * (12 if self.unit == "y" else 1)
        year, month = start.year + months // 12, months % 12 + 1
        try:
            return date(year, month, start.day)
        except ValueError:
            return date(year, month + 1, 1)  # only a month before December is too short

    def __str__(self) -> str:
        return f"{self.count}{self.unit}"
