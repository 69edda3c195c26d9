"""Format bytes, times and counts for people."""

_STEP = 1000
_HUNDRED, _SMALL = 100, 0.001
_MINUTE, _HOUR = 60, 3600


def format_bytes(size: float) -> str:
    """Return a number of bytes in the unit that fits, such as ``727 kB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < _STEP:
            return f"{size:.3g} {unit}"
        size /= _STEP
    return f"{size:,.1f} TB"


def format_duration(seconds: float) -> str:
    """Return a time in its two largest units, such as ``3 min 20 s``."""
    whole = round(seconds)
    if whole < _MINUTE:
        return f"{whole} s"
    if whole < _HOUR:
        return f"{whole // _MINUTE} min {whole % _MINUTE} s"
    return f"{whole // _HOUR} h {whole % _HOUR // _MINUTE} min"


def format_number(number: float) -> str:
    """Return a number with about three significant digits and never an exponent, such as ``0.067`` or ``5,000``."""
    return (
        f"{number:,.0f}"
        if number >= _HUNDRED
        else f"{number:.3g}"
        if number >= _SMALL or not number
        else f"{number:.3f}"
    )


def format_count(count: int, noun: str, *verbs: str) -> str:
    """Return a count, a noun and a verb that fit, such as ``1 entry`` or ``1,204 objects are``.

    Args:
        verbs: the verb for one thing, and for any other number of things.
    """
    plural = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
    words = [noun, *verbs[:1]] if count == 1 else [plural, *verbs[1:]]
    return f"{count:,} {' '.join(words)}"
