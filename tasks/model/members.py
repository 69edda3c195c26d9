"""Read enumeration values that a newer release may have written, such as after a rollback."""

import enum
from typing import TypeVar

Member = TypeVar("Member", bound=enum.StrEnum)


def read_member(cls: type[Member], value: str) -> Member:
    """Return the member with a value, or a stand-in that has the value and equals no member.

    Use this only for values that this project has written. An unknown value from a user or a producer is an error.

    Args:
        cls: the enumeration.
        value: the value of a member, perhaps of one that only a newer release has.
    """
    try:
        return cls(value)
    except ValueError:
        stand_in = str.__new__(cls, value)
        stand_in._name_ = stand_in._value_ = value
        return stand_in
