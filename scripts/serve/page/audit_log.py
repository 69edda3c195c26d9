"""Write down who looked at what, and who did what: one line each, never a name out of a bundle."""

import structlog

from scripts.serve.auth.roles import Caller

_log = structlog.get_logger("docv.access")


def evaluation_viewed(caller: Caller, eval_id: str) -> None:
    """Somebody looks at the manifest of an evaluation."""
    _log.info("evaluation.viewed", **_actor(caller), eval_id=eval_id)


def document_viewed(caller: Caller, eval_id: str, kind: str) -> None:
    """Somebody looks at a document."""
    _log.info("document.viewed", **_actor(caller), eval_id=eval_id, kind=kind)


def action_taken(caller: Caller, did: str, **facts: object) -> None:
    """Somebody did something."""
    _log.info(f"action.{did}", **_actor(caller), **facts)


def _actor(caller: Caller) -> dict[str, str]:
    return {"actor": caller.name, "role": caller.role.name.lower()}
