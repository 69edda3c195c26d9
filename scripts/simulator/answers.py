"""A request for an evaluation, its answer, and how the answer is delivered."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from scripts.simulator import messages


class Delivery(enum.Enum):
    """How an answer is delivered."""

    WHOLE = enum.auto()
    """The whole answer at once."""
    CUT = enum.auto()
    """Half of the body, then the connection ends."""
    RESET = enum.auto()
    """Half of the body, then the connection is reset."""
    LATE = enum.auto()
    """The whole answer after a pause."""
    DRIBBLE = enum.auto()
    """The headers at once, the body in small pieces."""


@dataclass(frozen=True, slots=True)
class SimulatedResponse:
    """One HTTP response.

    Attributes:
        status: the HTTP status.
        body: the whole body, even if only a part of it is delivered.
        headers: headers that the HTTP server does not add.
        delivery: how it is delivered.
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
        attempt: 1 for the first request that key, rate and quota let through.
        image_bytes: approximate size of each JPEG.
        elsewhere: URL to which a redirect leads.
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
        body: the body; by default the usual one of the status.
        headers: headers besides the content type.
    """
    usual = messages.BY_STATUS.get(status, {"message": "Error"})
    return SimulatedResponse(
        status, orjson.dumps(body or usual), {"Content-Type": "application/json"} | dict(headers or {})
    )
