"""Cells that a spreadsheet shows and does not run."""

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def csv_safe(cell: str) -> str:
    """Return a cell that no spreadsheet takes for a formula (OWASP, "CSV Injection")."""
    return "'" + cell if cell.startswith(_FORMULA) else cell
