"""The check of RabbitMQ: connection, login and queues; its password is never shown."""

from collections.abc import Iterator
from pathlib import Path

import amqp
import pytest

from scripts.doctor.finding import Finding, State
from scripts.doctor.rabbitmq import examine, judge_version
from tests.tls import server_context, tls_server


def examine_by_subject(url: str) -> dict[str, Finding]:
    return {finding.subject: finding for finding in examine(url)}


@pytest.fixture
def channel(rabbitmq_url: str) -> Iterator[amqp.Channel]:
    """A channel to a RabbitMQ whose queues are deleted before and after the test."""
    with amqp.Connection(rabbitmq_url.partition("@")[2].rstrip("/")) as connection, connection.channel() as channel:
        for queue in ("live", "backfill"):
            channel.queue_delete(queue)
        yield channel
        for queue in ("live", "backfill"):
            channel.queue_delete(queue)


def test_queues_are_checked_and_not_created(rabbitmq_url: str, channel: amqp.Channel) -> None:
    for _ in range(2):
        found = examine_by_subject(rabbitmq_url)
        assert {finding.state for finding in found.values()} == {State.FINE}, found
        assert "does not exist yet" in found["queue live in RabbitMQ"].message
    channel.queue_declare("live", durable=True, auto_delete=False)
    channel.basic_publish(amqp.Message("{}"), routing_key="live")
    channel.queue_declare("backfill", durable=False, auto_delete=False)
    found = examine_by_subject(rabbitmq_url)
    assert found["queue live in RabbitMQ"].message.endswith(", 0 consumers")
    assert found["queue backfill in RabbitMQ"].state is State.WRONG
    assert found["queue backfill in RabbitMQ"].fix


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("guest:guest", "guest:secret-word", "user and password"),
        ("//", "/elsewhere", "no access to the virtual host elsewhere"),
    ],
)
def test_a_refused_login_is_explained(rabbitmq_url: str, old: str, new: str, sentence: str) -> None:
    head, tail = rabbitmq_url.split("://")
    (finding,) = examine(f"{head}://{tail.replace(old, new)}")
    assert (finding.state, finding.unreachable) == (State.WRONG, False)
    assert sentence in finding.message
    assert "DOCV_BROKER_URL" in finding.fix
    assert "secret-word" not in finding.message + finding.fix


def test_rabbitmq_is_unreachable_when_nothing_listens(unused_tcp_port: int) -> None:
    (finding,) = examine(f"amqp://user:secret-word@127.0.0.1:{unused_tcp_port}//")
    assert (finding.state, finding.unreachable) == (State.WRONG, True)
    assert "secret-word" not in finding.message + finding.fix


def test_a_certificate_for_another_name_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context, authority = server_context(tmp_path, "other.example")
    monkeypatch.setenv("SSL_CERT_FILE", str(authority))
    with tls_server(context) as server:
        (finding,) = examine(f"amqps://user:secret-word@127.0.0.1:{server.port}//")
    assert (finding.state, finding.unreachable) == (State.WRONG, True)
    assert "its certificate is not trusted: IP address mismatch" in finding.message
    assert "secret-word" not in finding.message + finding.fix


@pytest.mark.parametrize(
    ("version", "state"),
    [
        ("3.10.8", State.FINE),
        ("4.1.0", State.FINE),
        ("3.9.1", State.WARNING),
        ("", State.WARNING),
        ("x", State.WARNING),
    ],
)
def test_an_old_or_unknown_version_is_a_warning(version: str, state: State) -> None:
    assert judge_version({"version": version}).state is state
