"""Deliver events of simulated evaluations to a webhook, as RiskOS does."""

import base64
import uuid
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import aiohttp

from scripts.simulator.records import record_of

_ANSWER_SECONDS = 30.0
_SHOWN = 200


@dataclass(frozen=True, slots=True)
class DeliveredEvent:
    """An event and its answer.

    Attributes:
        eval_id: the evaluation that the event names.
        status: HTTP status of the answer.
        answer: text of the answer, truncated.
    """

    eval_id: str
    status: int
    answer: str


def make_event(eval_id: str, event_type: str) -> dict[str, Any]:
    """Return an event of an evaluation; its data is the evaluation's record (RiskOS documentation, "Webhooks").

    Args:
        eval_id: canonical UUID in lower case.
        event_type: such as ``evaluation_completed``.
    """
    return {
        "event_id": str(uuid.uuid4()),
        "event_at": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "event_type": event_type,
        "data": record_of(eval_id),
    }


async def deliver_events(
    url: str, secret: str, event_type: str, eval_ids: Iterable[str]
) -> AsyncIterator[DeliveredEvent]:
    """Deliver an event for each evaluation, one after the other, and yield each with its answer.

    Args:
        url: address of the webhook.
        secret: Bearer token, or ``user:password`` for Basic.
        event_type: type of all events.
        eval_ids: the evaluations.

    Raises:
        aiohttp.ClientError: the webhook cannot be reached.
        TimeoutError: it does not answer.
    """
    timeout = aiohttp.ClientTimeout(total=_ANSWER_SECONDS)
    async with aiohttp.ClientSession(headers={"Authorization": _authorization(secret)}, timeout=timeout) as session:
        for eval_id in eval_ids:
            # A redirect would show the secret to another host.
            async with session.post(url, json=make_event(eval_id, event_type), allow_redirects=False) as response:
                answer = (await response.text(errors="replace")).strip()
                yield DeliveredEvent(eval_id, response.status, answer[:_SHOWN])


def _authorization(secret: str) -> str:
    return f"Basic {base64.b64encode(secret.encode()).decode()}" if ":" in secret else f"Bearer {secret}"
