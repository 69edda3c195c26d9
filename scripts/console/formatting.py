"""Bytes, times and cells of tables as a person reads them."""

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_STEP = 1000
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


def csv_safe(cell: str) -> str:
    """Return a cell that no spreadsheet takes for a formula (OWASP, "CSV Injection")."""
    return "'" + cell if cell.startswith(_FORMULA) else cell
