"""The finding of a check: its subject, its state, and how to fix it."""

import enum
from dataclasses import dataclass


class State(enum.StrEnum):
    """Result of a check."""

    FINE = "fine"
    WARNING = "warning"
    WRONG = "wrong"


@dataclass(frozen=True, slots=True)
class Finding:
    """The finding of one check.

    Attributes:
        subject: what was checked.
        state: the result.
        message: what the check found.
        fix: how to fix it; empty if it is fine.
        unreachable: whether a required service cannot be reached at all.
    """

    subject: str
    state: State
    message: str
    fix: str = ""
    unreachable: bool = False


def fine(what: str, message: str) -> Finding:
    """Return the finding of a check that passed."""
    return Finding(what, State.FINE, message)


def warning(what: str, message: str, fix: str = "") -> Finding:
    """Return the finding that something works, but should be improved."""
    return Finding(what, State.WARNING, message, fix)


def wrong(what: str, message: str, fix: str, *, unreachable: bool = False) -> Finding:
    """Return the finding that something does not work."""
    return Finding(what, State.WRONG, message, fix, unreachable)
