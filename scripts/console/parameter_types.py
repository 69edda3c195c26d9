"""Types of parameters that click does not have: rates, ranges, durations, percentages, lists of outcomes, columns."""

import math
import re
from typing import Any

import click

from tasks.model.outcome import ManifestOutcome

_EVIDENCE = ("document_type", "reason_codes")
_PERCENT = 100
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


class RateType(click.FloatRange):
    """Requests per second; refuses ``nan``, which ``FloatRange`` accepts."""

    name = "rate"

    def __init__(self) -> None:
        super().__init__(0, 10_000, min_open=True)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the requests per second."""
        number: float = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f"{value!r} is not a valid rate", param, ctx)
        return number


class RangeType(click.ParamType[tuple[int, int]]):
    """Two whole numbers such as ``0-9``, the smaller one first."""

    name = "range"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        """Return both numbers."""
        found = re.fullmatch(r"(\d{1,4})-(\d{1,4})", str(value), re.ASCII)
        if found is None or int(found[1]) > int(found[2]):
            self.fail(f"{value!r} is not a valid range: expected two numbers such as 0-9", param, ctx)
        return int(found[1]), int(found[2])


class DurationType(click.ParamType[float]):
    """A time such as ``90s``, ``30m``, ``2h`` or ``7d``, as seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the seconds."""
        number, unit = str(value)[:-1], str(value)[-1:]
        if not number.isascii() or not number.isdigit() or unit not in _UNITS:
            self.fail(f"{value!r} is not a valid duration: expected a number and s, m, h or d, such as 2h", param, ctx)
        return float(int(number) * _UNITS[unit])


class ShareType(click.ParamType[float]):
    """A percentage such as ``5%``, as a number from 0 to 1."""

    name = "share"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number from 0 to 1."""
        if isinstance(value, float):
            return value
        number, percent = str(value)[:-1], str(value)[-1:]
        if percent != "%" or not number.replace(".", "", 1).isdigit() or not 0 < float(number) <= _PERCENT:
            self.fail(f"{value!r} is not a valid share: expected a percentage such as 5%", param, ctx)
        return float(number) / _PERCENT


class OutcomesType(click.ParamType[tuple[ManifestOutcome, ...]]):
    """Comma-separated outcomes that a manifest can record, each once and in the order of ``ManifestOutcome``."""

    name = "outcomes"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[ManifestOutcome, ...]:
        """Return the outcomes."""
        if isinstance(value, tuple):
            return value
        # Erased evaluations are archived again with --even-if-erased only, and disposed ones never.
        valid = [outcome for outcome in ManifestOutcome if outcome not in _NEVER_AGAIN]
        named = {name.strip() for name in str(value).split(",")}
        if unknown := sorted(named.difference(valid)):
            self.fail(f"{unknown[0]!r} is not a valid outcome: expected some of {', '.join(valid)}", param, ctx)
        return tuple(outcome for outcome in valid if outcome in named)


_NEVER_AGAIN = frozenset({ManifestOutcome.ERASED, ManifestOutcome.DISPOSED})


class EvidenceColumnsType(click.ParamType[dict[str, str]]):
    """Columns such as ``document_type=COL,reason_codes=COL``, by these two names; ``none`` for no column."""

    name = "columns"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> dict[str, str]:
        """Return the columns by name."""
        columns: dict[str, str] = {}
        for part in () if value == "none" else str(value).split(","):
            name, _, column = (each.strip() for each in part.partition("="))
            if name not in _EVIDENCE or name in columns or not column:
                self.fail(f"{part!r} is not valid: expected document_type=COL, reason_codes=COL, or both", param, ctx)
            columns[name] = column
        return columns
