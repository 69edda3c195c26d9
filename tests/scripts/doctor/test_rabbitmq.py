"""RabbitMQ is examined where it carries the messages: reached, let in, its queues; and its password is never shown."""

from collections.abc import Iterator

import amqp
import pytest

from scripts.doctor.finding import Finding, State
from scripts.doctor.rabbitmq import examine, version


def examined(url: str) -> dict[str, Finding]:
    return {finding.subject: finding for finding in examine(url)}


@pytest.fixture
def channel(rabbitmq_url: str) -> Iterator[amqp.Channel]:
    """A channel to a RabbitMQ that has none of our queues, before and afterwards."""
    with amqp.Connection(rabbitmq_url.partition("@")[2].rstrip("/")) as connection, connection.channel() as channel:
        for queue in ("live", "backfill"):
            channel.queue_delete(queue)
        yield channel
        for queue in ("live", "backfill"):
            channel.queue_delete(queue)


def test_its_queues_are_looked_at_and_not_made(rabbitmq_url: str, channel: amqp.Channel) -> None:
    for _ in range(2):
        found = examined(rabbitmq_url)
        assert {finding.state for finding in found.values()} == {State.FINE}, found
        assert "not there yet" in found["queue live in RabbitMQ"].message
    channel.queue_declare("live", durable=True, auto_delete=False)
    channel.basic_publish(amqp.Message("{}"), routing_key="live")
    channel.queue_declare("backfill", durable=False, auto_delete=False)
    found = examined(rabbitmq_url)
    assert found["queue live in RabbitMQ"].message.endswith("messages, 0 consumers")
    assert found["queue backfill in RabbitMQ"].state is State.WRONG
    assert found["queue backfill in RabbitMQ"].fix


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [("guest:guest", "guest:secret-word", "user and password"), ("//", "/elsewhere", "no virtual host elsewhere")],
)
def test_whoever_is_not_let_in_is_told_why(rabbitmq_url: str, old: str, new: str, said: str) -> None:
    head, tail = rabbitmq_url.split("://")
    (finding,) = examine(f"{head}://{tail.replace(old, new)}")
    assert (finding.state, finding.unreachable) == (State.WRONG, False)
    assert said in finding.message
    assert "DOCV_BROKER_URL" in finding.fix
    assert "secret-word" not in finding.message + finding.fix


def test_where_nobody_listens_it_cannot_be_reached(unused_tcp_port: int) -> None:
    (finding,) = examine(f"amqp://user:secret-word@127.0.0.1:{unused_tcp_port}//")
    assert (finding.state, finding.unreachable) == (State.WRONG, True)
    assert "secret-word" not in finding.message + finding.fix


@pytest.mark.parametrize(
    ("told", "state"),
    [
        ("3.10.8", State.FINE),
        ("4.1.0", State.FINE),
        ("3.9.1", State.WARNING),
        ("", State.WARNING),
        ("x", State.WARNING),
    ],
)
def test_an_old_version_is_a_warning(told: str, state: State) -> None:
    assert version({"version": told}).state is state
