"""A question and its answer: what is asked for, what is said to it, and how that goes over the wire."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from scripts.simulator import messages


class Delivery(enum.Enum):
    """How an answer goes over the wire."""

    WHOLE = enum.auto()
    """At once, and all of it."""
    CUT = enum.auto()
    """Half of the body, then the connection ends."""
    RESET = enum.auto()
    """Half of the body, then the connection is reset."""
    LATE = enum.auto()
    """All of it, after a while."""
    DRIBBLE = enum.auto()
    """The headers at once, the body bit by bit."""


@dataclass(frozen=True, slots=True)
class SimulatedResponse:
    """One HTTP response.

    Attributes:
        status: the HTTP status.
        body: the whole body, also when less of it will be delivered.
        headers: the headers that are not a matter of course.
        delivery: how it goes over the wire.
    """

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    delivery: Delivery = Delivery.WHOLE


@dataclass(frozen=True, slots=True)
class SimulatedRequest:
    """One request for an evaluation's documents.

    Attributes:
        eval_id: canonical UUID in lower case.
        attempt: 1 for the first request that got as far as the evaluation.
        image_bytes: about the size of each JPEG.
        elsewhere: where a redirect leads.
    """

    eval_id: str
    attempt: int
    image_bytes: int
    elsewhere: str


def json_answer(
    status: int, body: Mapping[str, Any] | None = None, headers: Mapping[str, str] | None = None
) -> SimulatedResponse:
    """Return an answer in JSON.

    Args:
        status: the HTTP status.
        body: what is said; by default, what is usually said with the status.
        headers: headers beside the content type.
    """
    usual = messages.BY_STATUS.get(status, {"message": "Error"})
    return SimulatedResponse(
        status, orjson.dumps(body or usual), {"Content-Type": "application/json"} | dict(headers or {})
    )
