"""Holds as they are placed in everyday life."""

from tasks.hold import KEY_PAUSES, Holds, Reason


async def refused(holds: Holds, account: str, status: int, *, probe: bool) -> float:
    """RiskOS refused the key of an account; return the seconds until the next probe."""
    return await holds.until_probed(account, Reason.of_status(status), "refused", KEY_PAUSES, probe=probe)
