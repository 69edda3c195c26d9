"""An error about a source contains its full name, escaped for a terminal."""

import pickle

from scripts.console.error_messages import explain
from scripts.console.exit_codes import USAGE
from scripts.ids.errors import BadSource


def test_the_message_of_bad_source_begins_with_the_source() -> None:
    assert str(BadSource("it is binary", "-")) == "standard input: it is binary"
    assert str(BadSource("it is binary", "a/" * 40 + "b.csv")) == "a/" * 40 + "b.csv: it is binary"


def test_bad_source_escapes_control_characters() -> None:
    assert "\x1b" not in str(BadSource("it is binary", "\x1b[31mred.csv"))


def test_bad_source_is_a_usage_error_and_can_be_pickled() -> None:
    error = BadSource("it is binary", "ids.csv")
    assert explain(error) == ("ids.csv: it is binary", USAGE)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)  # noqa: S301  # pickled by this test
