"""JSON lines."""

import pytest

from scripts.ids.candidate import BadCandidate
from scripts.ids.errors import BadSource
from scripts.ids.json_lines import find_key, is_json_line, read_json_lines
from scripts.ids.lines import LONGEST


def test_an_object_or_the_id_alone_are_json_lines(eval_id: str) -> None:
    assert is_json_line('{"a": 1}', None)
    assert is_json_line(f'"{eval_id}"', None)
    assert is_json_line(f'"{eval_id}"', "eval_id")


@pytest.mark.parametrize("line", ["", "{", "{a}", '"a","b"', "12", "[1]", '"eval_id"', '"Eval ID"'])
def test_what_is_no_json_or_the_quoted_header_of_a_csv_is_not(line: str) -> None:
    assert not is_json_line(line, None)


def test_a_lone_string_that_is_no_id_is_a_header_when_a_column_is_asked_for() -> None:
    assert is_json_line('"id"', None)
    assert not is_json_line('"id"', "id")


def test_the_key_is_asked_for_or_known_or_the_only_one_with_ids(eval_id: str) -> None:
    head = [(1, '{"a": "x"}'), (2, f'{{"a": "y", "b": "{eval_id}", "evalId": null}}')]
    assert find_key(head, "a") == "a"
    assert find_key(head, None) == "evalId"
    assert find_key([(1, f'{{"a": 1, "id": "{eval_id}"}}')], None) == "id"
    assert find_key([(1, f'"{eval_id}"')], None) == "eval_id"


def test_a_key_that_is_not_there_is_told_with_those_that_are() -> None:
    with pytest.raises(BadSource, match="there is no column 'c'; give --column with one of 'a', 'b'"):
        find_key([(1, '{"a": 1, "b": 2}')], "c")


def test_a_nested_key_may_have_dots_and_a_plain_one_goes_first(eval_id: str) -> None:
    lines = [f'{{"a.b": {{"c.d": "{eval_id}"}}}}', '{"a": {"b.c": {"d": "x"}}}', '{"a.b.c.d": "y"}', '{"a": 5}']
    head = list(enumerate(lines, 1))
    assert find_key(head[:1], "a.b.c.d") == "a.b.c.d"
    read = [each for _, each in read_json_lines(iter(head), "a.b.c.d")]
    assert read == [eval_id, "x", "y", BadCandidate(lines[3], 'it has no "a.b.c.d"')]


def test_keys_are_named_at_every_depth_a_line_may_have() -> None:
    deep = '{"a":' * 1000 + "1" + "}" * 1000
    assert find_key([(1, deep)], ".".join("a" * 17)) == ".".join("a" * 17)
    with pytest.raises(BadSource, match="there is no column"):
        find_key([(1, deep)], ".".join("a" * 18))


def test_lines_are_read_one_by_one_and_each_flaw_has_its_reason(eval_id: str) -> None:
    given = [
        f'{{"eval_id": " {eval_id} "}}\n',
        f'"{eval_id}"\n',
        "\n",
        '{"eval_id": null}\n',
        '{"eval_id": " "}\n',
        '{"eval_id": 5}\n',
        '{"other": 5}\n',
        "nonsense\n",
        '{"eval_id": "' + "x" * LONGEST,
    ]
    read = dict(read_json_lines(enumerate(given, 1), "eval_id"))
    assert [read[1], read[2], read[4], read[5]] == [eval_id, eval_id, "", ""]
    assert 3 not in read
    assert {number: each.why for number, each in read.items() if isinstance(each, BadCandidate)} == {
        6: 'its "eval_id" is not a string',
        7: 'it has no "eval_id"',
        8: "it is neither a JSON object nor a JSON string",
        9: "it is longer than 1 MiB",
    }
