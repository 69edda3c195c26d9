"""Format texts, names and times for the page."""

import re
import time
import unicodedata
from datetime import UTC, datetime

from markupsafe import Markup

# Invisible letters and marks (mostly of Unicode's Default_Ignorable_Code_Point) that str.isprintable() passes.
_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
_DAY = 86_400
_UNITS = ((365 * _DAY, "year"), (30 * _DAY, "month"), (_DAY, "day"), (3_600, "h"), (60, "min"), (1, "s"))


def show_invisible(value: object) -> object:
    """Return a text with an escape, such as that of U+202E, in place of each control, bidi and zero-width character.

    A name from a bundle could otherwise be read as another one.
    """
    if not isinstance(value, str) or isinstance(value, Markup) or (value.isascii() and value.isprintable()):
        return value
    return "".join(char.encode("unicode_escape").decode() if _is_invisible(char) else char for char in value)


def _is_invisible(char: str) -> bool:
    return not (char.isprintable() or unicodedata.category(char) == "Zs") or bool(_INVISIBLE.match(char))


def breakable(name: str) -> Markup:
    """Return a name that may be broken after each slash and underscore, and nowhere else if that is enough."""
    parts = re.split(r"(?<=[/_])", str(show_invisible(name)))
    return Markup("<wbr>").join(part for part in parts if part)


def ago(moment: float | str) -> Markup | str:
    """Return how long ago a moment was, with the moment as a tooltip.

    Args:
        moment: seconds since the epoch, or RFC 3339; a text that is not a time is returned as it is.
    """
    at = _parse(moment)
    if at is None:
        return str(moment)
    elapsed = describe_distance(time.time() - at.timestamp())
    return Markup('<time datetime="{}" title="{}">{}</time>').format(at.isoformat(), exact(moment), elapsed)


def exact(moment: float | str) -> str:
    """Return a moment in the one format of the page, such as ``2026-11-23 04:00:00 UTC``; see ``ago``."""
    at = _parse(moment)
    return f"{at:%Y-%m-%d %H:%M:%S} UTC" if at else str(moment)


def both(moment: float | str) -> Markup:
    """Return how long ago a moment was, and the moment itself."""
    return Markup('{} <span class="dim">{}</span>').format(ago(moment), exact(moment))


def describe_distance(seconds: float) -> str:
    """Return a distance in time in its largest unit: ``5 min ago``, ``in 2 days``, ``just now``."""
    distance = abs(round(seconds))
    size, unit = next(((size, unit) for size, unit in _UNITS if distance >= size), (1, "s"))
    count = distance // size
    if not count:
        return "just now"
    words = f"{count:,} {unit}{'s' if count > 1 and size >= _DAY else ''}"
    return f"in {words}" if seconds < 0 else f"{words} ago"


def _parse(moment: float | str) -> datetime | None:
    try:
        if isinstance(moment, str):
            return datetime.fromisoformat(moment).astimezone(UTC)
        return datetime.fromtimestamp(moment, UTC)
    except (ValueError, OverflowError, OSError):
        return None
