"""The objects that a consumer and its loops share, as the settings describe them."""

import contextlib
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import Gauge
from pydantic import SecretStr

from tasks.consumer import parts as module
from tasks.memory.spool import Spool, spooled_bytes
from tasks.model.job import Queue
from worker.broker.rabbitmq import BACKFILL_PREFETCH
from worker.broker.redis_transport import paused_queues
from worker.config.settings import Settings

GAUGES = ("IN_FLIGHT", "PAUSED", "SPOOLED", "SPOOL_FREE", "SPOOL_SIZE")


def test_observe_gauges_shows_the_state_of_the_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    gauges = {name: Gauge(name.lower(), "-", registry=None) for name in GAUGES}
    for name, gauge in gauges.items():
        monkeypatch.setattr(module, name, gauge)
    process: Any = SimpleNamespace(concurrency=SimpleNamespace(in_flight=3), pause=SimpleNamespace(is_paused=True))
    module.observe_gauges(process, tmp_path)
    before = spooled_bytes()
    with closing(Spool(tmp_path)) as spool:
        spool.put([bytes(1_000)])
        values = {name: gauge.collect()[0].samples[0].value for name, gauge in gauges.items()}
    assert (values["IN_FLIGHT"], values["PAUSED"], values["SPOOLED"]) == (3, 1, before + 1_000)
    assert 0 < values["SPOOL_FREE"] <= values["SPOOL_SIZE"]


def test_the_backfill_queue_is_paused_while_enough_evaluations_are_fetched() -> None:
    prefetch = module._make_prefetch(Settings(concurrency=1))
    prefetch.expect_evaluations(Queue.BACKFILL, 4)
    assert Queue.BACKFILL in paused_queues
    prefetch.expect_evaluations(Queue.BACKFILL, -4)
    assert Queue.BACKFILL not in paused_queues


@pytest.mark.parametrize(("broker_url", "can_fetch"), [(None, True), (SecretStr("amqp://localhost"), False)])
def test_messages_of_the_backfill_are_limited_when_rabbitmq_is_the_broker(
    broker_url: SecretStr | None, *, can_fetch: bool
) -> None:
    prefetch = module._make_prefetch(Settings(concurrency=64, broker_url=broker_url))
    with contextlib.ExitStack() as messages:
        for _ in range(BACKFILL_PREFETCH):
            messages.enter_context(prefetch.track_message(Queue.BACKFILL))
        assert prefetch.can_fetch(Queue.BACKFILL) is can_fetch
