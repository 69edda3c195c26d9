"""A message for our task passes, and any other entry of a queue is refused without repeating it."""

import base64
import json
from typing import Any

import pytest
from celery import Celery
from hypothesis import given
from hypothesis import strategies as st
from kombu.transport.virtual import Message

from tests.spans import PARENT
from worker.broker.envelope import ARCHIVE_TASK, BadEnvelope, check_control_message, check_task_message
from worker.broker.redis_transport import broker_transport_url

SECRET = "Erika Mustermann"
ARGUMENTS: list[Any] = [[], {"eval_ids": ["x"]}, {}]
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=10,
)


class PlainChannel:
    """The part of a channel that a message needs."""

    def decode_body(self, body: str, encoding: str | None = None) -> Any:
        return base64.b64decode(body) if encoding else body


def message(body: Any = ARGUMENTS, /, **changed: Any) -> dict[str, Any]:
    raw = {
        "body": base64.b64encode(json.dumps(body).encode()).decode(),
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": {"task": ARCHIVE_TASK, "id": "an ID", "lang": "py", "timelimit": [None, None], "odd": SECRET},
        "properties": {"delivery_tag": "tag", "body_encoding": "base64", "delivery_info": {"routing_key": "live"}},
    }
    return raw | changed


def decode_message(payload: Any) -> Message:
    return Message(check_task_message(payload), channel=PlainChannel())


def reason_of(payload: Any) -> str:
    with pytest.raises(BadEnvelope) as refused:
        check_task_message(payload)
    assert SECRET not in str(refused.value)
    return str(refused.value)


def test_a_task_message_passes_with_only_the_headers_that_celery_needs() -> None:
    found = decode_message(message())
    assert found.headers == {"task": ARCHIVE_TASK, "id": "an ID", "lang": "py"}
    assert found.decode() == ARGUMENTS


@pytest.mark.parametrize("task", [{"task": ARCHIVE_TASK, "id": "an ID"}, {}], ids=["protocol 2", "protocol 1"])
def test_the_traceparent_of_a_producer_is_kept(task: dict[str, str]) -> None:
    body = ARGUMENTS if task else {"task": ARCHIVE_TASK, "id": "an ID", "kwargs": {"eval_ids": []}}
    found = decode_message(message(body, headers={**task, "traceparent": PARENT, "tracestate": SECRET}))
    assert found.headers == {**task, "traceparent": PARENT}


@pytest.mark.parametrize("traceparent", [SECRET, PARENT + SECRET, PARENT + "-" + "x" * 65, [PARENT], 7, None])
def test_an_invalid_traceparent_is_dropped(traceparent: object) -> None:
    headers = {"task": ARCHIVE_TASK, "id": "an ID", "traceparent": traceparent}
    assert decode_message(message(headers=headers)).headers == {"task": ARCHIVE_TASK, "id": "an ID"}


def test_a_message_of_celery_s_protocol_1_passes() -> None:
    body = {"task": ARCHIVE_TASK, "id": "an ID", "kwargs": {"eval_ids": []}}
    assert decode_message(message(body, headers={})).decode() == body


async def test_a_message_that_celery_publishes_passes(redis_url: str) -> None:
    plain = Celery(broker=broker_transport_url(redis_url), set_as_current=False)
    plain.conf.broker_transport_options = {"global_keyprefix": "test-envelope:"}
    with plain.connection_for_write() as connection:
        plain.send_task(ARCHIVE_TASK, kwargs={"eval_ids": ["x"]}, queue="live", connection=connection)
        entry = connection.default_channel.client.rpop("live")
    assert decode_message(json.loads(entry)).decode()[1] == {"eval_ids": ["x"]}
    plain.close()


@pytest.mark.parametrize("payload", [None, 7, "text", [], [message()], {}, {"properties": []}])
def test_an_entry_that_is_not_a_celery_message_is_refused(payload: Any) -> None:
    assert reason_of(payload)


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"properties": {"delivery_tag": "tag"}}, "no properties"),
        ({"properties": {"delivery_info": {}}}, "no delivery tag"),
        ({"content-type": "application/x-python-serialize"}, "set task_serializer to json"),
        ({"body": SECRET}, "its body is not JSON"),
        ({"body": base64.b64encode(b"[" * 100_000).decode()}, "its body is not JSON"),
        ({"body": base64.b64encode(b"\xff\xfe").decode()}, "its body is not JSON"),
        ({"body": None}, "no body"),
        ({"headers": {"task": SECRET, "id": "an ID"}}, f"for another task than {ARCHIVE_TASK}"),
        ({"headers": {"task": [SECRET], "id": "an ID"}}, "for another task"),
        ({"headers": {"task": ARCHIVE_TASK}}, "no task ID"),
        ({"headers": {"task": ARCHIVE_TASK, "id": "x" * 300}}, "no task ID"),
        ({"headers": {"task": ARCHIVE_TASK, "id": "an ID", "eta": {"at": SECRET}}}, "its eta is not a text"),
        ({"headers": [SECRET]}, "names no task"),
    ],
)
def test_an_unsuitable_message_is_refused_without_repeating_it(changed: dict[str, Any], why: str) -> None:
    assert why in reason_of(message(**changed))


@pytest.mark.parametrize("body", [{}, [], [[], {}], [{}, [], {}], [SECRET, {}, {}], SECRET])
def test_invalid_arguments_are_refused(body: Any) -> None:
    assert "no arguments as Celery writes them" in reason_of(message(body))


@pytest.mark.parametrize("value", [{"__type__": "uuid", "__value__": SECRET}, {"__type__": "decimal", "__value__": []}])
def test_values_that_kombu_cannot_decode_are_refused(value: dict[str, Any]) -> None:
    assert "its body is not JSON" in reason_of(message([[], {"eval_ids": value}, {}]))


@given(st.sampled_from(["body", "headers", "properties", "content-type", "content-encoding"]), json_values)
def test_any_value_in_a_part_is_refused_or_decoded(part: str, value: Any) -> None:
    try:
        found = decode_message(message(**{part: value}))
    except BadEnvelope:
        return
    assert found.decode() == ARGUMENTS


# -- messages between Celery's processes


def test_a_control_message_passes_with_only_the_headers_that_celery_needs() -> None:
    headers = {"clock": 7, "expires": 12.5, "ticket": "t", "hostname": "h", "compression": "none of ours"}
    found = Message(check_control_message(message({"method": "ping"}, headers=headers)), channel=PlainChannel())
    assert found.headers == {"clock": 7, "expires": 12.5, "ticket": "t", "hostname": "h"}
    assert found.decode() == {"method": "ping"}


@pytest.mark.parametrize(
    "payload", [None, [], {}, message(SECRET), message(7), message(body="[" * 10), message(properties={})]
)
def test_an_invalid_control_message_is_refused(payload: Any) -> None:
    with pytest.raises(BadEnvelope) as refused:
        check_control_message(payload)
    assert SECRET not in str(refused.value)


def test_a_control_message_is_refused_as_a_task_message() -> None:
    assert "names no task" in reason_of(message([{"method": "shutdown"}], headers={}))
    with pytest.raises(BadEnvelope):
        decode_message(message({"method": "shutdown"}, headers={"ticket": "t"}))
