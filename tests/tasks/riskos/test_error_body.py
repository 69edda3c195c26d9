import orjson
import pytest

from tasks.riskos.error_body import find_riskos_text, find_text, parse_error_body
from worker.config.riskos_texts import GATEWAY_TEXTS

TEXT = "The workflow has no document step."


@pytest.mark.parametrize(
    "shape",
    [
        {"message": TEXT},
        {"error": TEXT},
        {"referenceId": "r", "msg": TEXT},
        {"referenceId": "r", "msg": {"status": 400, "msg": TEXT}},
        {"error": "Bad Request", "code": "400", "message": TEXT, "details": "d", "invalid_args": []},
        {"error": "Bad Request", "code": "400", "message": "Bad request.", "details": TEXT, "invalid_args": []},
        {"error": "Bad Request", "code": "400", "message": {"text": "t"}, "details": TEXT},
        {"message": None, "error": TEXT},
        {"message": TEXT, "timestamp": 1_769_860_800},
        {"message": TEXT, "path": "/api"},
    ],
)
@pytest.mark.parametrize("charset", [None, "utf-8"])
def test_find_riskos_text_returns_the_first_text_that_no_gateway_uses(shape: object, charset: str | None) -> None:
    assert find_riskos_text(parse_error_body(orjson.dumps(shape), charset), GATEWAY_TEXTS) == TEXT


def test_find_riskos_text_returns_at_most_500_printable_characters() -> None:
    document = parse_error_body(
        b'{"message": "a\\u001b[31mb\\u0000c\\r\\nd\\u202ee\\ud800f \\u00e9' + b"x" * 600 + b'"}', None
    )
    text = find_riskos_text(document, ())
    assert text is not None
    assert text.startswith("a [31mb c  d e f \u00e9xxx")
    assert len(text) == 500


@pytest.mark.parametrize("texts", [(), ("Found",)])
def test_find_text_does_not_match_a_part_of_a_text(texts: tuple[str, ...]) -> None:
    assert find_text(parse_error_body(b'{"message": "No Documents Found"}', None), texts) is None


def test_find_text_does_not_match_the_name_of_a_field() -> None:
    assert find_text(parse_error_body(b'{"No Documents Found": true}', None), ("No Documents Found",)) is None


@pytest.mark.parametrize("charset", ["idna", "undefined", "rot13", "utf-7", "a\0b", "", "x" * 5_000])
def test_parse_error_body_ignores_an_absurd_charset(charset: str) -> None:
    assert find_text(parse_error_body(b'{"message": "None"}', charset), ("None",)) == "None"
