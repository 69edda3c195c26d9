"""How the ledger writes an order down, as its script reads it."""

import json
from dataclasses import asdict

from tasks.model.job import EnqueueOptions
from tasks.telemetry.tracing import whereabouts


def order_as_json(order: EnqueueOptions, *, listed: bool) -> str:
    """Return an order as the script reads it; ``listed`` is said of those of a run's list."""
    return json.dumps(
        {
            "queue": order.queue,
            "account": order.account,
            "trigger": {name: value for name, value in asdict(order.trigger).items() if value is not None},
            "run": order.trigger.run or "",
            "refresh": order.refresh,
            "even_if_erased": order.even_if_erased,
            "delay": round(order.delay * 1000),
            "evidence": order.evidence,
            "listed": listed,
        }
        | _traced()
    )


def _traced() -> dict[str, str]:
    trace = whereabouts()
    return {"trace": trace} if trace else {}
