import json

import pytest

from tasks.model.members import read_member
from tasks.model.outcome import Outcome


def test_read_member_returns_the_member_of_a_known_value() -> None:
    assert read_member(Outcome, "archived") is Outcome.ARCHIVED


def test_read_member_returns_a_stand_in_for_an_unknown_value() -> None:
    found = read_member(Outcome, "teleported")
    assert isinstance(found, Outcome)
    assert (str(found), found.value, f"{found}", json.dumps(found)) == ("teleported",) * 3 + ('"teleported"',)
    assert found not in list(Outcome)
    assert not found.ok
    assert {found: 1}["teleported"] == 1
    with pytest.raises(ValueError, match="teleported"):
        Outcome("teleported")  # the stand-in is not a member
