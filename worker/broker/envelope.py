"""A message's envelope made safe before Celery opens it, whatever carried it.

Tried on Celery 5.7: an entry of the queue that is no JSON, a JSON list, or full of brackets ends the worker; a task
that it does not know is dropped, and its whole body logged. So what is not built as Celery builds a message, for our
task, never gets that far. What is inside is read by ``tasks.queueing.message``.
"""

import base64
from collections.abc import Mapping
from typing import Any

from kombu.utils.json import loads

LIVE, BACKFILL = QUEUES = ("live", "backfill")
"""The queues of our task; producers write to them. What workers tell each other comes by others."""
ARCHIVE_TASK = "docv.archive"
"""Name of the one task; producers use it, and the worker finds it by name."""
UNREADABLE = (ValueError, TypeError, ArithmeticError, RecursionError)
"""What reading JSON may raise, kombu's own dates, decimals and IDs in it included."""
_MOST_NAME = 255
# Of all that a producer may have put there, these are for Celery; the others would only be asked for trouble.
_HEADERS = ("lang", "task", "id", "root_id", "parent_id", "origin", "eta")
_TALK_HEADERS = ("hostname", "clock", "expires", "ticket")


class BadEnvelope(ValueError):
    """An entry of a queue that is no message to our task; the sentence says why, and holds nothing of it."""


def check_task_message(payload: Any) -> dict[str, Any]:
    """Return an entry of a queue that is a message to our task, with no more headers than Celery needs.

    Raises:
        BadEnvelope: it is something else.
    """
    message, kinds, body = _decode(payload)
    return message | {"headers": safe_headers(kinds, body, message.get("headers"))}


def check_control_message(payload: Any) -> dict[str, Any]:
    """Return what Celery's processes say to each other: events, remote control, and its replies; no task comes so.

    Raises:
        BadEnvelope: it is something else.
    """
    message, kinds, body = _decode(payload)
    if not isinstance(_content(kinds, body), dict | list):
        raise BadEnvelope("its body is no JSON object")
    headers = message.get("headers")
    said = headers if isinstance(headers, dict) else {}
    return message | {"headers": {name: said[name] for name in _TALK_HEADERS if name in said}}


def _decode(payload: Any) -> tuple[dict[str, Any], tuple[object, object], str]:
    """Return what is built as Celery builds a message, its content type and encoding, and its body."""
    if not isinstance(payload, dict):
        raise BadEnvelope("it is no JSON object")
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
        raise BadEnvelope("its body is no JSON") from None
    return payload, (payload.get("content-type"), payload.get("content-encoding")), text


def safe_headers(kinds: tuple[object, object], body: str | bytes, headers: object) -> dict[str, object]:
    """Return those headers that are for Celery, of a message that is one to our task.

    Args:
        kinds: content type and content encoding.
        body: as the sender wrote it.
        headers: the same.

    Raises:
        BadEnvelope: it is something else.
    """
    content = _content(kinds, body)
    if isinstance(headers, dict) and "task" in headers:
        _check_task(headers)
        _check_parts(content)
        return {name: headers[name] for name in _HEADERS if name in headers}
    # Producers of Celery's first protocol write all of it into the body.
    if not isinstance(content, dict):
        raise BadEnvelope("it names no task")
    _check_task(content)
    _check_parts([content.get("args", []), content.get("kwargs", {}), {}])
    return {}


def _content(kinds: tuple[object, object], body: str | bytes) -> Any:
    if kinds != ("application/json", "utf-8"):
        raise BadEnvelope("its body is not application/json in utf-8; set task_serializer to json")
    try:
        return loads(body)
    except UNREADABLE:
        raise BadEnvelope("its body is no JSON") from None


def _check_task(facts: Mapping[str, object]) -> None:
    if facts.get("task") != ARCHIVE_TASK:
        raise BadEnvelope(f"it is for another task than {ARCHIVE_TASK}")
    if not isinstance(facts.get("id"), str) or not 0 < len(str(facts["id"])) <= _MOST_NAME:
        raise BadEnvelope("it has no task ID")
    if not isinstance(facts.get("eta"), str | None):
        raise BadEnvelope("its time is none")


def _check_parts(parts: object) -> None:
    match parts:
        case [list(), dict(), _]:  # positional arguments, keyword arguments, what Celery embeds
            return
    raise BadEnvelope("its body has no arguments as Celery writes them")
