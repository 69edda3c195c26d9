"""Every error becomes a response. An unexpected error is logged with its place in the code, and without its text."""

import json

import pytest
from kombu.exceptions import OperationalError
from redis.exceptions import OutOfMemoryError, ReadOnlyError, ResponseError
from structlog.testing import capture_logs

from scripts.serve.http.responses import HTTPError, error_response, to_http_error
from tasks.errors import IntegrityError, StorageError


@pytest.mark.parametrize(
    ("error", "status", "message"),
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
def test_a_service_error_has_its_status_and_message_and_503_has_retry_after(
    error: Exception, status: int, message: str
) -> None:
    answer = to_http_error(error)
    assert answer.status == status
    assert message in answer.why
    assert ("Retry-After" in answer.headers) == (status == 503)


def test_an_unforeseen_error_is_answered_with_500_and_without_its_text() -> None:
    with capture_logs() as logged:
        try:
            raise KeyError("canary")  # noqa: TRY301  # the error under test
        except KeyError as error:
            answer = error_response(to_http_error(error))
    assert (answer.status, "canary" in f"{answer.body!r} {logged}") == (500, False)
    assert logged[0]["error"] == "KeyError"
    assert logged[0]["where"].startswith("test_responses.py:")


def test_an_error_response_is_json_and_may_close_the_connection() -> None:
    answer = error_response(HTTPError(413, "too large", close=True))
    assert isinstance(answer.body, bytes)
    assert json.loads(answer.body) == {"error": "too large"}
    assert answer.keep_alive is False
