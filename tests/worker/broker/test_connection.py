"""Celery's connections reconnect soon, even after a long outage of their server."""

import pytest
from kombu.exceptions import OperationalError
from pydantic import SecretStr

from worker.app import make_publishing_app
from worker.config.settings import Settings


def test_reconnect_attempts_are_always_two_seconds_apart(unused_tcp_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kombu.utils.functional.sleep", lambda _: None)
    intervals: list[float] = []
    app = make_publishing_app(Settings(redis_url=SecretStr(f"redis://127.0.0.1:{unused_tcp_port}/0")))
    with app.connection_for_read() as connection, pytest.raises(OperationalError):
        connection.ensure_connection(lambda _, interval: intervals.append(interval), 5)
    assert intervals == [2.0] * 5
