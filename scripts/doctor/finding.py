"""What an examination found."""

import enum
from dataclasses import dataclass


class State(enum.StrEnum):
    """How it is."""

    FINE = "fine"
    WARNING = "warning"
    WRONG = "wrong"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was examined.

    Attributes:
        subject: the thing.
        state: how it is.
        message: what was seen.
        fix: what to do about it; empty where it is fine.
        unreachable: whether a service that is needed cannot be reached at all.
    """

    subject: str
    state: State
    message: str
    fix: str = ""
    unreachable: bool = False


def fine(what: str, message: str) -> Finding:
    """Return that it is as it should be."""
    return Finding(what, State.FINE, message)


def warning(what: str, message: str, fix: str = "") -> Finding:
    """Return that it works, and could be better."""
    return Finding(what, State.WARNING, message, fix)


def wrong(what: str, message: str, fix: str, *, unreachable: bool = False) -> Finding:
    """Return that it cannot work so."""
    return Finding(what, State.WRONG, message, fix, unreachable)
