"""JSON Lines."""

import pytest

from scripts.ids.candidate import BadCandidate
from scripts.ids.errors import BadSource
from scripts.ids.json_lines import find_key, is_json_line, read_json_lines
from scripts.ids.lines import LONGEST


def test_a_json_line_is_an_object_or_an_id(eval_id: str) -> None:
    assert is_json_line('{"a": 1}', None)
    assert is_json_line(f'"{eval_id}"', None)
    assert is_json_line(f'"{eval_id}"', "eval_id")


@pytest.mark.parametrize("line", ["", "{", "{a}", '"a","b"', "12", "[1]", '"eval_id"', '"Eval ID"'])
def test_a_line_is_not_a_json_line_when_it_is_another_value_or_a_csv_header(line: str) -> None:
    assert not is_json_line(line, None)


def test_a_lone_string_is_a_header_when_it_is_the_requested_column() -> None:
    assert is_json_line('"id"', None)
    assert not is_json_line('"id"', "id")


def test_find_key_prefers_the_requested_then_a_known_then_the_only_key_with_ids(eval_id: str) -> None:
    head = [(1, '{"a": "x"}'), (2, f'{{"a": "y", "b": "{eval_id}", "evalId": null}}')]
    assert find_key(head, "a") == "a"
    assert find_key(head, None) == "evalId"
    assert find_key([(1, f'{{"a": 1, "id": "{eval_id}"}}')], None) == "id"
    assert find_key([(1, f'"{eval_id}"')], None) == "eval_id"


def test_find_key_lists_the_keys_when_the_requested_one_is_missing() -> None:
    with pytest.raises(BadSource, match="there is no column 'c'; give --column with one of 'a', 'b'"):
        find_key([(1, '{"a": 1, "b": 2}')], "c")


def test_a_plain_key_takes_precedence_over_a_nested_one_with_dots(eval_id: str) -> None:
    lines = [f'{{"a.b": {{"c.d": "{eval_id}"}}}}', '{"a": {"b.c": {"d": "x"}}}', '{"a.b.c.d": "y"}', '{"a": 5}']
    head = list(enumerate(lines, 1))
    assert find_key(head[:1], "a.b.c.d") == "a.b.c.d"
    read = [each for _, each in read_json_lines(iter(head), "a.b.c.d")]
    assert read == [eval_id, "x", "y", BadCandidate(lines[3], 'it has no "a.b.c.d"')]


def test_nested_keys_are_found_down_to_the_depth_limit() -> None:
    deep = '{"a":' * 1000 + "1" + "}" * 1000
    assert find_key([(1, deep)], ".".join("a" * 17)) == ".".join("a" * 17)
    with pytest.raises(BadSource, match="there is no column"):
        find_key([(1, deep)], ".".join("a" * 18))


def test_read_json_lines_gives_each_bad_line_its_reason(eval_id: str) -> None:
    lines = [
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
    read = dict(read_json_lines(enumerate(lines, 1), "eval_id"))
    assert [read[1], read[2], read[4], read[5]] == [eval_id, eval_id, "", ""]
    assert 3 not in read
    assert {number: each.why for number, each in read.items() if isinstance(each, BadCandidate)} == {
        6: 'its "eval_id" is not a string',
        7: 'it has no "eval_id"',
        8: "it is neither a JSON object nor a JSON string",
        9: "it is longer than 1 MiB",
    }
