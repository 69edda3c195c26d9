"""Celery with Redis: kombu interprets the options and URLs as intended."""

import contextlib
import ssl
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from celery import signals
from kombu import Connection, Consumer, Exchange, Queue
from kombu.transport.redis import Channel
from pydantic import SecretStr
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from worker.app import make_publishing_app
from worker.broker.envelope import ARCHIVE_TASK
from worker.broker.redis_transport import (
    LiveFirst,
    RedisChannel,
    SlotReleasingQoS,
    broker_transport_url,
    paused_queues,
    publisher_transport_options,
    worker_transport_options,
)
from worker.config.settings import Settings


def settings(redis_url: str) -> Settings:
    return Settings(redis_url=SecretStr(redis_url))


def connection(redis_url: str) -> Connection:
    return make_publishing_app(settings(redis_url)).connection_for_write()


def test_a_worker_has_no_socket_timeout_that_would_stall_it() -> None:
    assert "socket_timeout" not in worker_transport_options()


@pytest.mark.parametrize("option", sorted(worker_transport_options() | publisher_transport_options()))
def test_kombu_accepts_every_transport_option(option: str) -> None:
    connecting = {"max_retries", "interval_start", "interval_step", "interval_max", "connect_retries_timeout"}
    assert option in {*Channel.from_transport_options, *connecting}


def test_the_options_reach_kombu_s_connection(redis_url: str) -> None:
    app = make_publishing_app(settings(redis_url))
    with app.connection_for_read() as worker:
        channel = worker.default_channel
        assert channel.visibility_timeout == 3600
        assert (channel.unacked_restore_interval, channel.unacked_restore_throttle) == (15, 1)
        assert channel.unacked_mutex_expire == 30
        assert channel.global_keyprefix == "docv:"
        assert channel.socket_timeout is None
    with app.connection_for_write(transport_options=publisher_transport_options()) as publisher:
        channel = publisher.default_channel
        assert (channel.socket_timeout, channel.socket_connect_timeout) == (2, 2)
        assert channel.global_keyprefix == "docv:"


def test_a_publisher_has_short_timeouts_and_the_key_prefix_of_a_worker() -> None:
    transport = publisher_transport_options()
    assert (transport["socket_timeout"], transport["socket_connect_timeout"]) == (2, 2)
    assert transport["global_keyprefix"] == worker_transport_options()["global_keyprefix"]
    assert transport["visibility_timeout"] == worker_transport_options()["visibility_timeout"]


# -- one Redis, two clients


@pytest.mark.parametrize("url", ["redis://host:6379/0", "redis://:word@host/2", "rediss://host:6380/1"])
def test_the_url_of_a_host_is_unchanged_for_kombu(url: str) -> None:
    found = connection(url)
    assert found.hostname == "host"
    assert found.password == ("word" if "word" in url else None)
    assert str(found.virtual_host) == url[-1]


def test_the_url_of_a_socket_is_converted_to_kombu_s_form() -> None:
    assert broker_transport_url("unix:///run/redis.sock") == "redis+socket:///run/redis.sock"
    assert broker_transport_url("redis://unix:6379/0") == "redis://unix:6379/0"


@pytest.mark.parametrize("url", ["rediss://host:6380/1", "rediss://:word@host:6380/1"])
def test_kombu_checks_the_server_s_certificate_by_default(url: str) -> None:
    with connection(url) as found:
        assert found.ssl
        assert found.ssl["ssl_cert_reqs"] in {ssl.CERT_REQUIRED, "required"}


def test_kombu_trusts_the_authority_in_the_url() -> None:
    with connection("rediss://host:6380/1?ssl_ca_certs=/etc/ours.pem") as found:
        assert found.ssl == {"ssl_ca_certs": "/etc/ours.pem", "ssl_cert_reqs": ssl.CERT_REQUIRED}


def test_kombu_checks_no_certificate_if_the_url_disables_the_check() -> None:
    with connection("rediss://host:6380/1?ssl_cert_reqs=none") as found:
        assert found.ssl == {"ssl_cert_reqs": ssl.CERT_NONE}


@pytest.mark.parametrize(
    "url",
    ["unix://user:word@/run/redis.sock", "unix://user:word@/run/redis.sock?db=2"],
    ids=["plain", "with a database"],
)
def test_the_password_of_a_socket_reaches_kombu(url: str) -> None:
    assert broker_transport_url(url).startswith("redis+socket://user:word@/run/redis.sock")


# -- slots


@pytest.fixture
def worker_qos(redis_url: str) -> Iterator[SlotReleasingQoS]:
    """Return the QoS of a worker with one slot, which is in use."""
    app = make_publishing_app(settings(redis_url))
    with app.connection_for_read() as worker:
        queue = worker.SimpleQueue("test-slots")
        app.send_task(ARCHIVE_TASK, kwargs={"eval_ids": []}, queue="test-slots", connection=worker)
        worker_qos = worker.default_channel.qos
        worker_qos.prefetch_count = 1
        queue.get(timeout=60)
        assert queue.channel.qos is worker_qos
        assert not worker_qos.can_consume()
        yield worker_qos
        queue.close()


def test_a_slot_is_released_when_a_message_is_acknowledged(worker_qos: SlotReleasingQoS) -> None:
    (tag,) = worker_qos._delivered
    worker_qos.ack(tag)
    assert worker_qos.can_consume()


@pytest.mark.parametrize(
    "end", [SlotReleasingQoS.ack, SlotReleasingQoS.reject, partial(SlotReleasingQoS.reject, requeue=True)]
)
def test_a_slot_is_released_even_if_redis_does_not_confirm(
    worker_qos: SlotReleasingQoS, monkeypatch: pytest.MonkeyPatch, end: Callable[[SlotReleasingQoS, str], None]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RedisConnectionError

    (tag,) = worker_qos._delivered
    monkeypatch.setattr(worker_qos, "_remove_from_indices", fail)
    monkeypatch.setattr(worker_qos, "restore_by_tag", fail)
    with pytest.raises(RedisConnectionError):
        end(worker_qos, tag)
    assert worker_qos.can_consume()


def test_a_message_is_taken_even_if_redis_is_full(redis_url: str) -> None:
    app = make_publishing_app(settings(redis_url))
    with app.connection_for_write() as opened, Redis.from_url(redis_url) as redis:
        app.send_task(ARCHIVE_TASK, kwargs={"eval_ids": []}, queue="test-full", connection=opened)
        redis.config_set("maxmemory", 1)
        try:
            queue = opened.SimpleQueue("test-full")
            queue.get(timeout=60).ack()
            queue.close()
        finally:
            redis.config_set("maxmemory", 0)


# -- queue entries


@pytest.mark.parametrize("entry", ["Erika", "[" * 10_000, "[]"])
def test_an_entry_that_is_not_a_message_is_reported_and_the_next_one_is_delivered(redis_url: str, entry: str) -> None:
    reported: list[str] = []

    def record(exc: Exception, **_: object) -> None:
        reported.append(str(exc))

    app = make_publishing_app(settings(redis_url))
    with app.connection_for_write() as opened, Redis.from_url(redis_url) as redis:
        redis.delete("docv:live")
        redis.lpush("docv:live", entry)
        app.send_task(ARCHIVE_TASK, kwargs={"eval_ids": []}, queue="live", connection=opened)
        signals.task_rejected.connect(record)
        try:
            queue = opened.SimpleQueue("live")
            queue.get(timeout=60).ack()
            queue.close()
        finally:
            signals.task_rejected.disconnect(record)
    assert len(reported) == 1
    assert entry not in reported[0]


# -- the order of queues


@pytest.fixture
def _resume_queues() -> Iterator[None]:
    yield
    paused_queues.resume("backfill")
    paused_queues.is_worker_paused = False


def test_the_live_queue_is_read_first(redis_url: str) -> None:
    with make_publishing_app(settings(redis_url)).connection_for_read(
        transport_options=worker_transport_options()
    ) as worker:
        channel = worker.default_channel
        channel._active_queues = ["backfill", "live"]
        channel._update_queue_cycle()
        assert channel._queue_cycle.consume(2) == ["live", "backfill"]


@pytest.mark.usefixtures("_resume_queues")
def test_a_paused_queue_is_not_read_until_it_is_resumed() -> None:
    order = LiveFirst({"backfill", "live"})
    paused_queues.pause("backfill")
    assert order.consume(2) == ["live"]
    paused_queues.resume("backfill")
    assert order.consume(2) == ["live", "backfill"]


@pytest.mark.usefixtures("_resume_queues")
def test_a_paused_worker_reads_no_queue_and_keeps_polling() -> None:
    order = LiveFirst({"backfill", "live"})
    paused_queues.pause("backfill")
    paused_queues.is_worker_paused = True
    assert not {"backfill", "live"} & set(order.consume(2))
    assert "live" in paused_queues
    assert paused_queues
    paused_queues.resume("backfill")
    assert not {"backfill", "live"} & set(order.consume(2))
    paused_queues.is_worker_paused = False
    assert order.consume(2) == ["live", "backfill"]
    assert not paused_queues


@pytest.mark.usefixtures("_resume_queues")
def test_a_worker_keeps_polling_if_all_its_queues_are_paused() -> None:
    order = LiveFirst({"backfill"})
    paused_queues.pause("backfill")
    assert len(order.consume(1)) == 1
    assert "backfill" not in order.consume(1)
    assert LiveFirst().consume(1) == []


@pytest.mark.usefixtures("_resume_queues")
def test_a_channel_polls_often_while_a_queue_is_paused(monkeypatch: pytest.MonkeyPatch) -> None:
    timeouts: list[float | None] = []
    monkeypatch.setattr(Channel, "_brpop_start", lambda _, timeout: timeouts.append(timeout))
    channel = RedisChannel.__new__(RedisChannel)
    channel._brpop_start(1.0)
    paused_queues.pause("backfill")
    channel._brpop_start(1.0)
    assert timeouts == [1.0, 0.05]


def test_messages_share_a_client_until_the_channel_has_a_new_pool(redis_url: str) -> None:
    with connection(redis_url) as opened:
        channel = opened.default_channel
        with channel.conn_or_acquire() as first, channel.conn_or_acquire() as second:
            assert first is second
        channel._disconnect_pools()
        with channel.conn_or_acquire() as third:
            assert third is not first
            assert third.ping()


# -- messages between Celery's processes


@pytest.fixture
def broadcasts(redis_url: str) -> Iterator[tuple[Any, list[Any]]]:
    """Return a channel that receives broadcasts, and the list of those it has received."""
    app, received = make_publishing_app(settings(redis_url)), []
    with app.connection_for_read(transport_options=worker_transport_options()) as worker:
        channel = worker.default_channel
        queue = Queue("test-all", Exchange("test-all", type="fanout"))
        with Consumer(
            channel, [queue], callbacks=[lambda body, _: received.append(body)], no_ack=True, accept=["json"]
        ):
            yield worker, received


def test_broadcasts_are_delivered_and_other_entries_are_dropped(
    broadcasts: tuple[Any, list[Any]], redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    worker, received = broadcasts
    with contextlib.suppress(TimeoutError):
        worker.drain_events(timeout=0.1)  # the channel subscribes now
    with Redis.from_url(redis_url) as redis:
        for entry in ("[" * 10_000, "Erika Mustermann", "null", "7", "{}", '{"properties": {"delivery_tag": 1}}'):
            assert redis.publish("docv:/0.test-all", entry) == 1
    with make_publishing_app(settings(redis_url)).connection_for_write() as other:
        exchange = Exchange("test-all", type="fanout")
        other.Producer().publish({"method": "ping"}, exchange=exchange, declare=[exchange])
    with contextlib.suppress(TimeoutError):
        while not received:
            worker.drain_events(timeout=20)
    assert received == [{"method": "ping"}]
    assert "Mustermann" not in caplog.text
