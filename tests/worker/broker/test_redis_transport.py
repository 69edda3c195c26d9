"""How Celery talks to Redis: asked of kombu, which is to read it as it is meant."""

import contextlib
import ssl
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from kombu import Connection, Consumer, Exchange, Queue
from kombu.transport.redis import Channel
from pydantic import SecretStr
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from worker.app import make_publishing_app
from worker.broker.envelope import ARCHIVE_TASK
from worker.broker.redis_transport import (
    LiveFirst,
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


def test_a_worker_has_no_socket_timeout_that_would_make_it_deaf() -> None:
    assert "socket_timeout" not in worker_transport_options()


@pytest.mark.parametrize("option", sorted(worker_transport_options() | publisher_transport_options()))
def test_kombu_reads_every_option_of_the_transport(option: str) -> None:
    connecting = {"max_retries", "interval_start", "interval_step", "interval_max", "connect_retries_timeout"}
    assert option in {*Channel.from_transport_options, *connecting}


def test_the_options_arrive_at_the_queue(redis_url: str) -> None:
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


def test_publishers_give_up_soon() -> None:
    transport = publisher_transport_options()
    assert (transport["socket_timeout"], transport["socket_connect_timeout"]) == (2, 2)
    assert transport["global_keyprefix"] == worker_transport_options()["global_keyprefix"]
    assert transport["visibility_timeout"] == worker_transport_options()["visibility_timeout"]


# -- one Redis, two clients


@pytest.mark.parametrize("url", ["redis://host:6379/0", "redis://:word@host/2", "rediss://host:6380/1"])
def test_the_address_of_a_host_is_the_same_for_the_queue(url: str) -> None:
    found = connection(url)
    assert found.hostname == "host"
    assert found.password == ("word" if "word" in url else None)
    assert str(found.virtual_host) == url[-1]


def test_a_socket_is_written_as_kombu_writes_it() -> None:
    assert broker_transport_url("unix:///run/redis.sock") == "redis+socket:///run/redis.sock"
    assert broker_transport_url("redis://unix:6379/0") == "redis://unix:6379/0"


@pytest.mark.parametrize("url", ["rediss://host:6380/1", "rediss://:word@host:6380/1"])
def test_the_queue_checks_the_server_s_certificate_as_the_ledger_does(url: str) -> None:
    with connection(url) as found:
        assert found.ssl
        assert found.ssl["ssl_cert_reqs"] in {ssl.CERT_REQUIRED, "required"}


def test_the_queue_trusts_the_authority_that_the_ledger_trusts() -> None:
    with connection("rediss://host:6380/1?ssl_ca_certs=/etc/ours.pem") as found:
        assert found.ssl == {"ssl_ca_certs": "/etc/ours.pem", "ssl_cert_reqs": ssl.CERT_REQUIRED}


def test_the_queue_checks_no_certificate_where_the_address_says_so() -> None:
    with connection("rediss://host:6380/1?ssl_cert_reqs=none") as found:
        assert found.ssl == {"ssl_cert_reqs": ssl.CERT_NONE}


@pytest.mark.parametrize(
    "url",
    ["unix://user:word@/run/redis.sock", "unix://user:word@/run/redis.sock?db=2"],
    ids=["plain", "with a database"],
)
def test_a_socket_s_password_is_not_lost_on_the_way_to_the_queue(url: str) -> None:
    assert broker_transport_url(url).startswith("redis+socket://user:word@/run/redis.sock")


# -- places


@pytest.fixture
def places(redis_url: str) -> Iterator[SlotReleasingQoS]:
    """The places of a worker with room for one message, which is taken."""
    app = make_publishing_app(settings(redis_url))
    with app.connection_for_read() as worker:
        queue = worker.SimpleQueue("test-places")
        app.send_task(ARCHIVE_TASK, kwargs={"eval_ids": []}, queue="test-places", connection=worker)
        places = worker.default_channel.qos
        places.prefetch_count = 1
        queue.get(timeout=5)
        assert queue.channel.qos is places
        assert not places.can_consume()
        yield places
        queue.close()


def test_a_place_is_given_back_when_a_message_is_acknowledged(places: SlotReleasingQoS) -> None:
    (tag,) = places._delivered
    places.ack(tag)
    assert places.can_consume()


@pytest.mark.parametrize(
    "end", [SlotReleasingQoS.ack, SlotReleasingQoS.reject, partial(SlotReleasingQoS.reject, requeue=True)]
)
def test_a_place_is_given_back_also_when_redis_does_not_confirm_it(
    places: SlotReleasingQoS, monkeypatch: pytest.MonkeyPatch, end: Callable[[SlotReleasingQoS, str], None]
) -> None:
    def away(*_: object, **__: object) -> None:
        raise RedisConnectionError

    (tag,) = places._delivered
    monkeypatch.setattr(places, "_remove_from_indices", away)
    monkeypatch.setattr(places, "restore_by_tag", away)
    with pytest.raises(RedisConnectionError):
        end(places, tag)
    assert places.can_consume()


# -- which queues are read


@pytest.fixture
def _nothing_rests() -> Iterator[None]:
    yield
    paused_queues.resume("backfill")


def test_what_is_live_is_asked_for_first(redis_url: str) -> None:
    with make_publishing_app(settings(redis_url)).connection_for_read(
        transport_options=worker_transport_options()
    ) as worker:
        channel = worker.default_channel
        channel._active_queues = ["backfill", "live"]
        channel._update_queue_cycle()
        assert channel._queue_cycle.consume(2) == ["live", "backfill"]


@pytest.mark.usefixtures("_nothing_rests")
def test_a_queue_that_rests_is_not_read_until_it_does_so_no_more() -> None:
    order = LiveFirst({"backfill", "live"})
    paused_queues.pause("backfill")
    assert order.consume(2) == ["live"]
    paused_queues.resume("backfill")
    assert order.consume(2) == ["live", "backfill"]


@pytest.mark.usefixtures("_nothing_rests")
def test_a_worker_all_of_whose_queues_rest_asks_for_nothing_but_goes_on_asking() -> None:
    order = LiveFirst({"backfill"})
    paused_queues.pause("backfill")
    assert len(order.consume(1)) == 1
    assert "backfill" not in order.consume(1)
    assert LiveFirst().consume(1) == []


def test_messages_share_a_client_as_long_as_its_connections_are_the_channel_s(redis_url: str) -> None:
    with connection(redis_url) as opened:
        channel = opened.default_channel
        with channel.conn_or_acquire() as first, channel.conn_or_acquire() as second:
            assert first is second
        channel._disconnect_pools()
        with channel.conn_or_acquire() as third:
            assert third is not first
            assert third.ping()


# -- what Celery's processes say to each other


@pytest.fixture
def listening(redis_url: str) -> Iterator[tuple[Any, list[Any]]]:
    """A channel that hears what is said to all, and what it has heard."""
    app, heard = make_publishing_app(settings(redis_url)), []
    with app.connection_for_read(transport_options=worker_transport_options()) as worker:
        channel = worker.default_channel
        queue = Queue("test-all", Exchange("test-all", type="fanout"))
        with Consumer(channel, [queue], callbacks=[lambda body, _: heard.append(body)], no_ack=True, accept=["json"]):
            yield worker, heard


def test_what_is_said_to_all_is_heard_and_what_is_no_message_is_dropped(
    listening: tuple[Any, list[Any]], redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    worker, heard = listening
    with contextlib.suppress(TimeoutError):
        worker.drain_events(timeout=0.1)  # it subscribes now
    with Redis.from_url(redis_url) as redis:
        for noise in ("[" * 10_000, "Erika Mustermann", "null", "7", "{}", '{"properties": {"delivery_tag": 1}}'):
            assert redis.publish("docv:/0.test-all", noise) == 1
    with make_publishing_app(settings(redis_url)).connection_for_write() as other:
        all_of_them = Exchange("test-all", type="fanout")
        other.Producer().publish({"method": "ping"}, exchange=all_of_them, declare=[all_of_them])
    with contextlib.suppress(TimeoutError):
        while not heard:
            worker.drain_events(timeout=20)
    assert heard == [{"method": "ping"}]
    assert "Mustermann" not in caplog.text
