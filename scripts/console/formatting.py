"""Say how many bytes something is, to a person."""

_STEP = 1000


def amount(size: float) -> str:
    """Return a number of bytes in the unit that fits, such as ``727 kB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < _STEP:
            return f"{size:.3g} {unit}"
        size /= _STEP
    return f"{size:,.1f} TB"
