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
        what: the thing.
        state: how it is.
        said: what was seen.
        mend: what to do about it; empty where it is fine.
        unreachable: whether a service that is needed cannot be reached at all.
    """

    what: str
    state: State
    said: str
    mend: str = ""
    unreachable: bool = False


def fine(what: str, said: str) -> Finding:
    """Return that it is as it should be."""
    return Finding(what, State.FINE, said)


def warning(what: str, said: str, mend: str = "") -> Finding:
    """Return that it works, and could be better."""
    return Finding(what, State.WARNING, said, mend)


def wrong(what: str, said: str, mend: str, *, unreachable: bool = False) -> Finding:
    """Return that it cannot work so."""
    return Finding(what, State.WRONG, said, mend, unreachable)
