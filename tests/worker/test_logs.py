import io
import json
import logging
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog

from worker.logs import Redaction, configure_logs

SECRET = "s3cr3t-k3y"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Written:
    """What goes to standard error."""

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
def written(capsys: pytest.CaptureFixture[str]) -> Iterator[Written]:
    """What goes to standard error; the logging of this process is afterwards as it was."""
    root = logging.getLogger()
    before = root.handlers, root.level, _levels()
    yield Written(capsys)
    structlog.reset_defaults()
    root.handlers, root.level, levels = before
    for name in _levels():
        logging.getLogger(name).setLevel(levels.get(name, logging.NOTSET))


def _levels() -> dict[str, int]:
    loggers = logging.getLogger().manager.loggerDict
    return {name: logger.level for name, logger in loggers.items() if isinstance(logger, logging.Logger)}


def logger() -> Any:
    """A logger that no other test has used: structlog remembers how each was set up first."""
    return structlog.get_logger("docv.test")


# -- redaction


def redacted(line: str, *secrets: str) -> str:
    return Redaction(secrets)(None, "info", line)


def test_a_line_without_secrets_stays_as_it_is() -> None:
    line = '{"event": "evaluation.archived", "url": "https://riskos.example/api", "note": "bear with us"}'
    assert redacted(line, SECRET) == line


def test_a_secret_is_hidden_wherever_it_stands_and_however_often() -> None:
    assert redacted(f"{SECRET} x{SECRET}y", SECRET) == "[hidden] x[hidden]y"


def test_every_secret_is_hidden() -> None:
    assert redacted("first, second, third-one", "first,", "third-one") == "[hidden] second, [hidden]"


def test_a_secret_that_begins_like_another_is_hidden_whole() -> None:
    assert redacted("the-secret-2025", "the-secret", "the-secret-2025") == "[hidden]"


@pytest.mark.parametrize("secret", ["", "a", "dummy"])
def test_a_secret_too_short_to_be_one_blacks_out_no_words(secret: str) -> None:
    assert redacted("a line of dummy words", secret) == "a line of dummy words"


@pytest.mark.parametrize("secret", ['quo"ted', "back\\slash", 'both\\"of', "it's<&>"])
def test_a_secret_is_hidden_also_as_json_and_python_write_it(secret: str) -> None:
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
        ("https://a:b@c and rediss://d:e@f", "https://a:[hidden]@c and rediss://d:[hidden]@f"),
    ],
)
def test_what_looks_like_a_credential_is_hidden_although_nobody_named_it(line: str, hidden: str) -> None:
    assert redacted(line) == hidden


@pytest.mark.parametrize(
    "line",
    ["https://riskos.example:443/api", "redis://host:6379/0", "2026-01-01T10:00:00 user@host", "s3://bucket/a:b"],
)
def test_an_address_without_a_password_stays_as_it_is(line: str) -> None:
    assert redacted(line) == line


# -- lines


def test_an_event_is_one_line_of_json_with_its_fields(written: Written) -> None:
    configure_logs("INFO")
    logger().info("evaluation.archived", eval_id="0b54a4d4", attempt=1)
    (line,) = written.lines
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "evaluation.archived",
        "eval_id": "0b54a4d4",
        "attempt": 1,
        "level": "info",
        "logger": "docv.test",
    }


def test_a_library_s_line_has_the_same_shape(written: Written) -> None:
    configure_logs("INFO")
    logging.getLogger("some.package").warning("%s of %d", "one", 2)
    (line,) = written.lines
    assert line.pop("timestamp").endswith("Z")
    assert line == {"event": "one of 2", "level": "warning", "logger": "some.package"}


def test_a_value_with_line_breaks_stays_on_one_line(written: Written) -> None:
    configure_logs("INFO")
    logger().info("message.bad", why="first\nsecond\r\n\u2028third")
    assert [line["why"] for line in written.lines] == ["first\nsecond\r\n\u2028third"]


def test_what_a_block_is_about_stands_in_every_line_whoever_logs_it(written: Written) -> None:
    configure_logs("INFO")
    with structlog.contextvars.bound_contextvars(about={"run": "2026-q3", "attempt": 1}):
        logger().info("evaluation.archived", attempt=2)
        logging.getLogger("aiohttp.client").warning("slow")
    logger().info("ledger.dispatched")
    told = [(line.get("run"), line.get("attempt")) for line in written.lines]
    assert told == [("2026-q3", 2), ("2026-q3", 1), (None, None)]


@pytest.mark.parametrize("get_logger", [structlog.get_logger, logging.getLogger])
def test_an_exception_is_told_with_its_traceback_and_without_secrets(
    written: Written, get_logger: Callable[[str], Any]
) -> None:
    configure_logs("INFO", [SECRET])
    get_logger("docv.test").error("fault", exc_info=LookupError(f"the key {SECRET}"))
    (line,) = written.lines
    assert "LookupError: the key [hidden]" in line["exception"]
    assert line["event"] == "fault"


@pytest.mark.parametrize("name", ["docv.test", "celery", "redis", "aiohttp.client"])
def test_no_secret_leaves_whoever_writes_it(written: Written, name: str) -> None:
    configure_logs("INFO", [SECRET])
    log = logging.getLogger(name)
    log.warning("key %s", SECRET)
    log.warning("headers %r", {"Authorization": f"Bearer {SECRET}"})
    log.warning("url %s", f"redis://:{SECRET}@host/0")
    structlog.get_logger(name).warning("event", key=SECRET, nested={"keys": [SECRET]}, **{SECRET: 1})
    assert len(written.lines) == 4
    assert SECRET not in written.text


def test_at_a_terminal_a_line_is_made_for_a_person_and_is_as_clean(
    written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    configure_logs("INFO", [SECRET])
    logger().info("evaluation.archived", key=SECRET)
    assert "evaluation.archived" in terminal.getvalue()
    assert not terminal.getvalue().startswith("{")
    assert SECRET not in terminal.getvalue()


def test_what_is_less_severe_than_the_level_is_not_written(written: Written) -> None:
    configure_logs("WARNING")
    logger().info("not worth it")
    logging.getLogger("some.package").info("not worth it")
    logger().warning("worth it")
    assert [line["event"] for line in written.lines] == ["worth it"]


@pytest.mark.parametrize("level", ["INFO", "ERROR"])
def test_who_looked_at_what_is_written_whatever_the_level(written: Written, level: str) -> None:
    configure_logs(level)
    structlog.get_logger("docv.access").info("document.viewed", actor="operator")
    assert [line["event"] for line in written.lines] == ["document.viewed"]


@pytest.mark.parametrize("name", ["kombu", "aiohttp.access", "botocore.endpoint", "urllib3", "asyncio"])
@pytest.mark.parametrize("level", ["DEBUG", "INFO"])
def test_talkative_libraries_are_heard_when_something_is_wrong(written: Written, name: str, level: str) -> None:
    configure_logs(level)
    logging.getLogger(name).info("a request")
    logging.getLogger(name).warning("something is wrong")
    assert [line["event"] for line in written.lines] == ["something is wrong"]


@pytest.mark.parametrize(("level", "told"), [("DEBUG", 2), ("INFO", 1)])
def test_of_each_message_that_comes_only_those_hear_who_want_to_know_everything(
    written: Written, level: str, told: int
) -> None:
    logging.getLogger("celery.worker.strategy").setLevel(logging.NOTSET)
    configure_logs(level)
    logging.getLogger("celery.worker.strategy").info("Task received")
    logging.getLogger("celery.worker.strategy").warning("Task refused")
    assert len(written.lines) == told


def test_a_level_above_warning_holds_for_talkative_libraries_too(written: Written) -> None:
    configure_logs("ERROR")
    logging.getLogger("kombu").warning("something is wrong")
    assert written.text == ""


def test_a_message_that_is_handed_back_is_no_warning_of_celery_s(written: Written) -> None:
    configure_logs("INFO")
    logging.getLogger("celery.app.trace").warning("Task rejected")
    logging.getLogger("celery.app.trace").error("Task failed")
    assert [line["event"] for line in written.lines] == ["Task failed"]


def test_setting_up_twice_writes_each_line_once(written: Written) -> None:
    configure_logs("INFO")
    configure_logs("INFO")
    logging.getLogger("some.package").warning("once")
    assert len(written.lines) == 1
