"""The commands that try docv-archive against the simulator, as `simulate` prints them and README shows them."""

import shlex

_RATE = 100


def rehearsal_settings(url: str, key: str, rate: int | None) -> dict[str, str]:
    """Return settings with which a few hundred evaluations of every scenario end within a minute.

    With the defaults, those that always fail would become dead letters only after half an hour.

    Args:
        url: base URL of the simulator.
        key: an API key that it accepts.
        rate: requests per second that it grants; None if it grants all.
    """
    return {
        "DOCV_RISKOS_URL": url,
        "DOCV_API_KEY": key,
        "DOCV_RATE": str(min(rate or _RATE, _RATE)),
        "DOCV_DAILY_QUOTA": "1000000",
        "DOCV_ATTEMPTS": "3",
        "DOCV_RETRY_SECONDS": "1",
    }


def rehearsal_commands(settings: dict[str, str], count: int = 300) -> str:
    """Return shell commands, one per line and none longer than 80 characters, for an empty folder."""
    pairs = [f"{name}={shlex.quote(value)}" for name, value in settings.items()]
    return "\n".join(
        (
            "mkdir rehearsal && cd rehearsal",
            f"docv-archive simulate --ids {count} > ids.txt",
            f"export {' '.join(pairs[:2])}",
            f"export {' '.join(pairs[2:4])}",
            f"export {' '.join(pairs[4:])}",
            "docv-archive run ids.txt",
        )
    )
