"""An error about a source names it completely, and safely for a terminal."""

import pickle

from scripts.console.error_messages import explain
from scripts.console.exit_codes import USAGE
from scripts.ids.errors import BadSource


def test_the_sentence_begins_with_the_source() -> None:
    assert str(BadSource("it is binary", "-")) == "standard input: it is binary"
    assert str(BadSource("it is binary", "a/" * 40 + "b.csv")) == "a/" * 40 + "b.csv: it is binary"


def test_a_name_writes_nothing_raw_on_the_terminal() -> None:
    assert "\x1b" not in str(BadSource("it is binary", "\x1b[31mred.csv"))


def test_it_is_a_matter_of_usage_and_may_be_sent_to_another_process() -> None:
    error = BadSource("it is binary", "ids.csv")
    assert explain(error) == ("ids.csv: it is binary", USAGE)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)  # noqa: S301  # we have made it ourselves
