"""Say how long something takes, to a person."""

_MINUTE, _HOUR = 60, 3600


def duration(seconds: float) -> str:
    """Return a time in its two largest units, such as ``3 min 20 s``."""
    whole = round(seconds)
    if whole < _MINUTE:
        return f"{whole} s"
    if whole < _HOUR:
        return f"{whole // _MINUTE} min {whole % _MINUTE} s"
    return f"{whole // _HOUR} h {whole % _HOUR // _MINUTE} min"
