"""How the ledger writes an order down, as its script reads it."""

import json
from dataclasses import asdict

from tasks.model.job import EnqueueOptions
from tasks.telemetry.tracing import current_traceparent


def options_as_json(options: EnqueueOptions, *, listed: bool) -> str:
    """Return an order as the script reads it; ``listed`` is said of those of a run's list."""
    return json.dumps(
        {
            "queue": options.queue,
            "account": options.account,
            "trigger": {name: value for name, value in asdict(options.trigger).items() if value is not None},
            "run": options.trigger.run or "",
            "refresh": options.refresh,
            "even_if_erased": options.even_if_erased,
            "delay": round(options.delay * 1000),
            "evidence": options.evidence,
            "listed": listed,
        }
        | _trace_fields()
    )


def _trace_fields() -> dict[str, str]:
    trace = current_traceparent()
    return {"trace": trace} if trace else {}
