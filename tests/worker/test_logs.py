import io
import json
import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog

from worker.logs import Redaction, configure_logs

SECRET = "s3cr3t-k3y"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class CapturedLines:
    """The lines on standard error."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys, self._read = capsys, ""

    @property
    def text(self) -> str:
        self._read += self._capsys.readouterr().err
        return self._read

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text.splitlines()]


@pytest.fixture
def captured(capsys: pytest.CaptureFixture[str]) -> Iterator[CapturedLines]:
    """Capture standard error, and restore the logging of this process afterwards."""
    root = logging.getLogger()
    before = root.handlers, root.level, _levels()
    yield CapturedLines(capsys)
    structlog.reset_defaults()
    logging.captureWarnings(capture=False)
    root.handlers, root.level, levels = before
    for name in _levels():
        logging.getLogger(name).setLevel(levels.get(name, logging.NOTSET))


def _levels() -> dict[str, int]:
    loggers = logging.getLogger().manager.loggerDict
    return {name: logger.level for name, logger in loggers.items() if isinstance(logger, logging.Logger)}


def logger() -> Any:
    """Return a logger that no other test uses, because structlog caches the first configuration of each logger."""
    return structlog.get_logger("docv.test")


def test_a_python_warning_becomes_a_log_line(captured: CapturedLines) -> None:
    configure_logs("INFO")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=True)
        warnings.warn("the worker runs as root", RuntimeWarning, stacklevel=1)
    (line,) = captured.lines
    assert (line["level"], line["logger"]) == ("warning", "py.warnings")
    assert "RuntimeWarning: the worker runs as root" in line["event"]


# -- redaction


def redacted(line: str, *secrets: str) -> str:
    return Redaction(secrets)(None, "info", line)


def test_a_line_without_secrets_is_unchanged() -> None:
    line = '{"event": "evaluation.archived", "url": "https://riskos.example/api", "note": "bear with us"}'
    assert redacted(line, SECRET) == line


def test_every_occurrence_of_a_secret_is_hidden() -> None:
    assert redacted(f"{SECRET} x{SECRET}y", SECRET) == "[hidden] x[hidden]y"


def test_every_secret_is_hidden() -> None:
    assert redacted("first, second, third-one", "first,", "third-one") == "[hidden] second, [hidden]"


def test_a_secret_that_begins_like_another_is_hidden_completely() -> None:
    assert redacted("the-secret-2025", "the-secret", "the-secret-2025") == "[hidden]"


@pytest.mark.parametrize("secret", ["", "a", "dummy"])
def test_a_very_short_secret_hides_nothing(secret: str) -> None:
    assert redacted("a line of dummy words", secret) == "a line of dummy words"


@pytest.mark.parametrize("secret", ['quo"ted', "back\\slash", 'both\\"of', "it's<&>"])
def test_a_secret_is_hidden_in_the_escaped_forms_of_json_and_python(secret: str) -> None:
    for line in (json.dumps({"key": secret}), repr({"key": secret}), repr({"it's": f"'{secret}"})):
        hidden = redacted(line, secret)
        assert secret not in hidden
        assert json.dumps(secret)[1:-1] not in hidden
        assert repr(secret)[1:-1] not in hidden


@pytest.mark.parametrize(
    ("line", "hidden"),
    [
        ("Authorization: Bearer abc.DEF-123_~+/==", "Authorization: Bearer [hidden]"),
        ('{"Authorization": "Bearer abc"}', '{"Authorization": "Bearer [hidden]"}'),
        ("authorization: basic dXNlcjpwYXNz", "authorization: basic [hidden]"),
        ("BEARER   abc, Bearer def", "BEARER [hidden], Bearer [hidden]"),
        ("redis://user:pass@host:6379/0", "redis://user:[hidden]@host:6379/0"),
        ("redis://:pass@host/0", "redis://:[hidden]@host/0"),
        ("rediss+sentinel://h/s?sentinel_password=geheim&x=1", "rediss+sentinel://h/s?sentinel_password=[hidden]&x=1"),
        ("https://a:b@c and rediss://d:e@f", "https://a:[hidden]@c and rediss://d:[hidden]@f"),
    ],
)
def test_unknown_credentials_are_hidden_by_their_form(line: str, hidden: str) -> None:
    assert redacted(line) == hidden


@pytest.mark.parametrize(
    "line",
    ["https://riskos.example:443/api", "redis://host:6379/0", "2026-01-01T10:00:00 user@host", "s3://bucket/a:b"],
)
def test_a_url_without_a_password_is_unchanged(line: str) -> None:
    assert redacted(line) == line


# -- lines


def test_an_event_is_one_line_of_json_with_its_fields(captured: CapturedLines) -> None:
    configure_logs("INFO")
    logger().info("evaluation.archived", eval_id="0b54a4d4", attempt=1)
    (line,) = captured.lines
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "evaluation.archived",
        "eval_id": "0b54a4d4",
        "attempt": 1,
        "level": "info",
        "logger": "docv.test",
    }


def test_a_line_of_a_library_has_the_same_form(captured: CapturedLines) -> None:
    configure_logs("INFO")
    logging.getLogger("some.package").warning("%s of %d", "one", 2)
    (line,) = captured.lines
    assert line.pop("timestamp").endswith("Z")
    assert line == {"event": "one of 2", "level": "warning", "logger": "some.package"}


def test_a_value_with_line_breaks_stays_on_one_line(captured: CapturedLines) -> None:
    configure_logs("INFO")
    logger().info("message.bad", why="first\nsecond\r\n\u2028third")
    assert [line["why"] for line in captured.lines] == ["first\nsecond\r\n\u2028third"]


def test_every_line_in_a_block_has_its_bound_fields(captured: CapturedLines) -> None:
    configure_logs("INFO")
    with structlog.contextvars.bound_contextvars(about={"run": "2026-q3", "attempt": 1}):
        logger().info("evaluation.archived", attempt=2)
        logging.getLogger("aiohttp.client").warning("slow")
    logger().info("ledger.dispatched")
    fields = [(line.get("run"), line.get("attempt")) for line in captured.lines]
    assert fields == [("2026-q3", 2), ("2026-q3", 1), (None, None)]


@pytest.mark.parametrize("get_logger", [structlog.get_logger, logging.getLogger])
def test_an_exception_is_logged_with_its_traceback_and_without_secrets(
    captured: CapturedLines, get_logger: Callable[[str], Any]
) -> None:
    configure_logs("INFO", [SECRET])
    get_logger("docv.test").error("fault", exc_info=LookupError(f"the key {SECRET}"))
    (line,) = captured.lines
    assert "LookupError: the key [hidden]" in line["exception"]
    assert line["event"] == "fault"


@pytest.mark.parametrize("name", ["docv.test", "celery", "redis", "aiohttp.client"])
def test_no_secret_is_logged_by_any_logger(captured: CapturedLines, name: str) -> None:
    configure_logs("INFO", [SECRET])
    log = logging.getLogger(name)
    log.warning("key %s", SECRET)
    log.warning("headers %r", {"Authorization": f"Bearer {SECRET}"})
    log.warning("url %s", f"redis://:{SECRET}@host/0")
    structlog.get_logger(name).warning("event", key=SECRET, nested={"keys": [SECRET]}, **{SECRET: 1})
    assert len(captured.lines) == 4
    assert SECRET not in captured.text


def test_a_line_on_a_terminal_is_readable_and_has_no_secrets(
    captured: CapturedLines, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    configure_logs("INFO", [SECRET])
    logger().info("evaluation.archived", key=SECRET)
    assert "evaluation.archived" in terminal.getvalue()
    assert not terminal.getvalue().startswith("{")
    assert SECRET not in terminal.getvalue()


def test_lines_below_the_level_are_not_logged(captured: CapturedLines) -> None:
    configure_logs("WARNING")
    logger().info("not worth it")
    logging.getLogger("some.package").info("not worth it")
    logger().warning("worth it")
    assert [line["event"] for line in captured.lines] == ["worth it"]


@pytest.mark.parametrize("level", ["INFO", "ERROR"])
def test_the_access_log_is_written_at_any_level(captured: CapturedLines, level: str) -> None:
    configure_logs(level)
    structlog.get_logger("docv.access").info("document.viewed", actor="operator")
    assert [line["event"] for line in captured.lines] == ["document.viewed"]


@pytest.mark.parametrize("name", ["kombu", "aiohttp.access", "botocore.endpoint", "urllib3", "asyncio"])
@pytest.mark.parametrize("level", ["DEBUG", "INFO"])
def test_verbose_libraries_log_warnings_only(captured: CapturedLines, name: str, level: str) -> None:
    configure_logs(level)
    logging.getLogger(name).info("a request")
    logging.getLogger(name).warning("something is wrong")
    assert [line["event"] for line in captured.lines] == ["something is wrong"]


@pytest.mark.parametrize(("level", "count"), [("DEBUG", 2), ("INFO", 1)])
def test_received_messages_are_logged_at_debug_only(captured: CapturedLines, level: str, count: int) -> None:
    logging.getLogger("celery.worker.strategy").setLevel(logging.NOTSET)
    configure_logs(level)
    logging.getLogger("celery.worker.strategy").info("Task received")
    logging.getLogger("celery.worker.strategy").warning("Task refused")
    assert len(captured.lines) == count


def test_a_level_above_warning_applies_to_verbose_libraries_too(captured: CapturedLines) -> None:
    configure_logs("ERROR")
    logging.getLogger("kombu").warning("something is wrong")
    assert captured.text == ""


def test_celery_logs_no_warning_for_a_released_message(captured: CapturedLines) -> None:
    configure_logs("INFO")
    logging.getLogger("celery.app.trace").warning("Task rejected")
    logging.getLogger("celery.app.trace").error("Task failed")
    assert [line["event"] for line in captured.lines] == ["Task failed"]


def test_each_line_is_logged_once_after_configuring_twice(captured: CapturedLines) -> None:
    configure_logs("INFO")
    configure_logs("INFO")
    logging.getLogger("some.package").warning("once")
    assert len(captured.lines) == 1
