"""Whatever is in a queue: a message to our task gets through, everything else is refused in our own words."""

import base64
import json
from typing import Any

import pytest
from celery import Celery
from hypothesis import given
from hypothesis import strategies as st
from kombu.transport.virtual import Message

from worker.broker.envelope import ARCHIVE_TASK, BadEnvelope, check_control_message, check_task_message
from worker.broker.redis_transport import broker_transport_url

SECRET = "Erika Mustermann"
ARGUMENTS: list[Any] = [[], {"eval_ids": ["x"]}, {}]
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=10,
)


class Plain:
    """As much of a channel as a message needs."""

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


def opened(payload: Any) -> Message:
    return Message(check_task_message(payload), channel=Plain())


def refusal(payload: Any) -> str:
    with pytest.raises(BadEnvelope) as refused:
        check_task_message(payload)
    assert SECRET not in str(refused.value)
    return str(refused.value)


def test_a_message_to_our_task_gets_through_with_no_more_headers_than_celery_needs() -> None:
    found = opened(message())
    assert found.headers == {"task": ARCHIVE_TASK, "id": "an ID", "lang": "py"}
    assert found.decode() == ARGUMENTS


def test_celery_s_first_protocol_gets_through() -> None:
    body = {"task": ARCHIVE_TASK, "id": "an ID", "kwargs": {"eval_ids": []}}
    assert opened(message(body, headers={})).decode() == body


async def test_what_celery_publishes_gets_through(redis_url: str) -> None:
    plain = Celery(broker=broker_transport_url(redis_url), set_as_current=False)
    plain.conf.broker_transport_options = {"global_keyprefix": "test-envelope:"}
    with plain.connection_for_write() as connection:
        plain.send_task(ARCHIVE_TASK, kwargs={"eval_ids": ["x"]}, queue="live", connection=connection)
        entry = connection.default_channel.client.rpop("live")
    assert opened(json.loads(entry)).decode()[1] == {"eval_ids": ["x"]}
    plain.close()


@pytest.mark.parametrize("payload", [None, 7, "text", [], [message()], {}, {"properties": []}])
def test_what_is_built_otherwise_is_refused(payload: Any) -> None:
    assert refusal(payload)


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"properties": {"delivery_tag": "tag"}}, "no properties"),
        ({"properties": {"delivery_info": {}}}, "no delivery tag"),
        ({"content-type": "application/x-python-serialize"}, "set task_serializer to json"),
        ({"body": SECRET}, "its body is no JSON"),
        ({"body": base64.b64encode(b"[" * 100_000).decode()}, "its body is no JSON"),
        ({"body": base64.b64encode(b"\xff\xfe").decode()}, "its body is no JSON"),
        ({"body": None}, "no body"),
        ({"headers": {"task": SECRET, "id": "an ID"}}, f"for another task than {ARCHIVE_TASK}"),
        ({"headers": {"task": [SECRET], "id": "an ID"}}, "for another task"),
        ({"headers": {"task": ARCHIVE_TASK}}, "no task ID"),
        ({"headers": {"task": ARCHIVE_TASK, "id": "x" * 300}}, "no task ID"),
        ({"headers": {"task": ARCHIVE_TASK, "id": "an ID", "eta": {"at": SECRET}}}, "its time is none"),
        ({"headers": [SECRET]}, "names no task"),
    ],
)
def test_what_does_not_fit_is_refused_in_words_of_our_own(changed: dict[str, Any], why: str) -> None:
    assert why in refusal(message(**changed))


@pytest.mark.parametrize("body", [{}, [], [[], {}], [{}, [], {}], [SECRET, {}, {}], SECRET])
def test_arguments_that_are_none_are_refused(body: Any) -> None:
    assert "no arguments as Celery writes them" in refusal(message(body))


@pytest.mark.parametrize("value", [{"__type__": "uuid", "__value__": SECRET}, {"__type__": "decimal", "__value__": []}])
def test_values_that_kombu_cannot_make_are_refused(value: dict[str, Any]) -> None:
    assert "its body is no JSON" in refusal(message([[], {"eval_ids": value}, {}]))


@given(st.sampled_from(["body", "headers", "properties", "content-type", "content-encoding"]), json_values)
def test_whatever_stands_in_a_part_is_refused_or_opened(part: str, value: Any) -> None:
    try:
        found = opened(message(**{part: value}))
    except BadEnvelope:
        return
    assert found.decode() == ARGUMENTS


# -- what Celery's processes say to each other


def test_what_celery_says_to_its_workers_gets_through_with_no_more_headers_than_it_needs() -> None:
    headers = {"clock": 7, "expires": 12.5, "ticket": "t", "hostname": "h", "compression": "none of ours"}
    heard = Message(check_control_message(message({"method": "ping"}, headers=headers)), channel=Plain())
    assert heard.headers == {"clock": 7, "expires": 12.5, "ticket": "t", "hostname": "h"}
    assert heard.decode() == {"method": "ping"}


@pytest.mark.parametrize(
    "payload", [None, [], {}, message(SECRET), message(7), message(body="[" * 10), message(properties={})]
)
def test_what_celery_would_not_say_is_refused(payload: Any) -> None:
    with pytest.raises(BadEnvelope) as refused:
        check_control_message(payload)
    assert SECRET not in str(refused.value)


def test_a_task_is_no_talk_and_talk_is_no_task() -> None:
    assert "names no task" in refusal(message([{"method": "shutdown"}], headers={}))
    with pytest.raises(BadEnvelope):
        opened(message({"method": "shutdown"}, headers={"ticket": "t"}))
