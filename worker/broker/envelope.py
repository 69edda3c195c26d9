"""Check the envelope of a message before Celery decodes it, for Redis and RabbitMQ.

In Celery 5.7, a queue entry that is not JSON, is a JSON list, or has deeply nested brackets ends the worker. A message
for an unknown task is dropped, and its whole body is logged. Such entries therefore never reach Celery. The arguments
are checked by ``tasks.queueing.message``.
"""

import base64
import re
from collections.abc import Mapping
from typing import Any

from kombu.utils.json import loads

LIVE, BACKFILL = QUEUES = ("live", "backfill")
"""The queues of our task, which producers write to. Workers communicate through other queues."""
ARCHIVE_TASK = "docv.archive"
"""Name of the only task."""
UNREADABLE = (ValueError, TypeError, ArithmeticError, RecursionError)
"""The exceptions that kombu's JSON decoder may raise, including those for its dates, decimals and UUIDs."""
_MOST_NAME = 255
# Celery needs these headers. All other headers of a producer are removed as a precaution.
_HEADERS = ("lang", "task", "id", "root_id", "parent_id", "origin", "eta")
# W3C Trace Context; a newer version may append fields.
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-[!-~]{0,64})?", re.ASCII)
_CONTROL_HEADERS = ("hostname", "clock", "expires", "ticket")


class BadEnvelope(ValueError):
    """A queue entry is not a message for our task. The message says why, without any part of the entry."""


def check_task_message(payload: Any) -> dict[str, Any]:
    """Return a message for our task, with only the headers that Celery needs.

    Raises:
        BadEnvelope: the entry is not such a message.
    """
    message, kinds, body = _decode(payload)
    return message | {"headers": safe_headers(kinds, body, message.get("headers"))}


def check_control_message(payload: Any) -> dict[str, Any]:
    """Return a message between Celery's processes: an event, a remote control command, or a reply to one.

    Raises:
        BadEnvelope: the entry is not such a message.
    """
    message, kinds, body = _decode(payload)
    if not isinstance(_content(kinds, body), dict | list):
        raise BadEnvelope("its body is not a JSON object")
    headers = message.get("headers")
    given = headers if isinstance(headers, dict) else {}
    return message | {"headers": {name: given[name] for name in _CONTROL_HEADERS if name in given}}


def _decode(payload: Any) -> tuple[dict[str, Any], tuple[object, object], str]:
    """Return a message of Celery, its content type and encoding, and its body."""
    if not isinstance(payload, dict):
        raise BadEnvelope("it is not a JSON object")
    properties = payload.get("properties")
    if not isinstance(properties, dict) or not isinstance(properties.get("delivery_info"), dict):
        raise BadEnvelope("it has no properties as Celery writes them")
    if not isinstance(properties.get("delivery_tag"), str):
        raise BadEnvelope("it has no delivery tag")
    body, encoding = payload.get("body"), properties.get("body_encoding")
    if not isinstance(body, str) or encoding not in {"base64", None}:
        raise BadEnvelope("it has no body as Celery writes it")
    try:
        text = base64.b64decode(body, validate=True).decode() if encoding else body
    except ValueError:
        raise BadEnvelope("its body is not JSON") from None
    return payload, (payload.get("content-type"), payload.get("content-encoding")), text


def safe_headers(kinds: tuple[object, object], body: str | bytes, headers: object) -> dict[str, object]:
    """Check a message for our task, and return the headers that Celery needs.

    Args:
        kinds: content type and content encoding.
        body: the body, as the sender wrote it.
        headers: the headers, as the sender wrote them.

    Raises:
        BadEnvelope: it is not a message for our task.
    """
    content = _content(kinds, body)
    if isinstance(headers, dict) and "task" in headers:
        _check_task(headers)
        _check_parts(content)
        return {name: headers[name] for name in _HEADERS if name in headers} | _trace_header(headers)
    # In version 1 of Celery's protocol, all of this is in the body.
    if not isinstance(content, dict):
        raise BadEnvelope("it names no task")
    _check_task(content)
    _check_parts([content.get("args", []), content.get("kwargs", {}), {}])
    return _trace_header(headers)


def _trace_header(headers: object) -> dict[str, object]:
    """Return the producer's W3C ``traceparent``, if it is one."""
    found = headers.get("traceparent") if isinstance(headers, dict) else None
    return {"traceparent": found} if isinstance(found, str) and _TRACEPARENT.fullmatch(found) else {}


def _content(kinds: tuple[object, object], body: str | bytes) -> Any:
    if kinds != ("application/json", "utf-8"):
        raise BadEnvelope("its body is not application/json in utf-8; set task_serializer to json")
    try:
        return loads(body)
    except UNREADABLE:
        raise BadEnvelope("its body is not JSON") from None


def _check_task(facts: Mapping[str, object]) -> None:
    if facts.get("task") != ARCHIVE_TASK:
        raise BadEnvelope(f"it is for another task than {ARCHIVE_TASK}")
    if not isinstance(facts.get("id"), str) or not 0 < len(str(facts["id"])) <= _MOST_NAME:
        raise BadEnvelope("it has no task ID")
    if not isinstance(facts.get("eta"), str | None):
        raise BadEnvelope("its eta is not a text")


def _check_parts(parts: object) -> None:
    match parts:
        case [list(), dict(), _]:  # positional arguments, keyword arguments, Celery's callbacks
            return
    raise BadEnvelope("its body has no arguments as Celery writes them")
