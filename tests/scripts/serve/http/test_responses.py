"""Every error becomes a response, and an unexpected one names only its place in the code."""

import json

import pytest
from kombu.exceptions import OperationalError
from redis.exceptions import OutOfMemoryError, ReadOnlyError, ResponseError
from structlog.testing import capture_logs

from scripts.serve.http.responses import HTTPError, error_response, to_http_error
from tasks.errors import IntegrityError, StorageError


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (ConnectionError(), 503, "Redis does not answer"),
        (TimeoutError(), 503, "Redis does not answer"),
        (ReadOnlyError(), 503, "Redis does not answer"),
        (ResponseError("MISCONF"), 503, "Redis does not answer"),
        (OperationalError(), 503, "Redis does not answer"),
        (OutOfMemoryError(), 503, "Redis is full"),
        (StorageError("read", "timeout"), 503, "the archive does not answer"),
        (IntegrityError("a manifest is damaged"), 502, "a manifest is damaged"),
    ],
)
def test_an_error_of_a_service_says_what_to_do(error: Exception, status: int, said: str) -> None:
    answer = to_http_error(error)
    assert answer.status == status
    assert said in answer.why
    assert ("Retry-After" in answer.headers) == (status == 503)


def test_what_nobody_foresaw_is_a_mistake_of_ours_and_its_text_is_not_told() -> None:
    with capture_logs() as logged:
        try:
            raise KeyError("canary")  # noqa: TRY301  # the error under test
        except KeyError as error:
            answer = error_response(to_http_error(error))
    assert (answer.status, "canary" in f"{answer.body!r} {logged}") == (500, False)
    assert logged[0]["error"] == "KeyError"
    assert logged[0]["where"].startswith("test_responses.py:")


def test_a_refusal_is_json_and_may_end_the_connection() -> None:
    answer = error_response(HTTPError(413, "too large", close=True))
    assert isinstance(answer.body, bytes)
    assert json.loads(answer.body) == {"error": "too large"}
    assert answer.keep_alive is False
