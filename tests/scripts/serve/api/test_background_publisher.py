"""A failed or slow publish never fails a request, because the evaluation is in the ledger."""

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from scripts.serve.api import background_publisher as module
from scripts.serve.api.background_publisher import BackgroundPublisher
from tasks.model.job import Queue
from tasks.queueing.publisher import Publisher
from worker.app import make_publishing_app
from worker.config.settings import Settings


async def test_a_failed_publish_is_logged_and_raises_nothing(tmp_path: Path) -> None:
    settings = Settings(redis_url=SecretStr(f"unix://{tmp_path}/missing.sock"))
    publisher = Publisher(make_publishing_app(settings))
    with capture_logs() as logged:
        await BackgroundPublisher(publisher).publish(Queue.LIVE, ["0b54a4d4-6e5b-4f3c-9d2a-7c1f0e8b9a10"])
    publisher.close()
    assert (logged[0]["event"], logged[0]["evaluations"]) == ("publish.delayed", 1)


async def test_publish_returns_at_its_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()

    class Stuck:
        def publish(self, _queue: Queue, _eval_ids: Sequence[str], _size: int) -> None:
            released.wait(30)

    stuck: Any = Stuck()
    monkeypatch.setattr(module, "_SECONDS", 0.05)  # two seconds would slow the test down
    with capture_logs() as logged:
        await BackgroundPublisher(stuck).publish(Queue.LIVE, ["an ID"])
    released.set()
    assert logged[0]["error"] == "TimeoutError"


async def test_publish_opens_no_connection_without_ids() -> None:
    unused: Any = None
    await BackgroundPublisher(unused).publish(Queue.LIVE, [])
