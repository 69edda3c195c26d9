"""Examine the settings: they could be read; is what is needed there, and is it strong?"""

from collections.abc import Iterator

from scripts.doctor.finding import Finding, fine, warning, wrong
from worker.config.accounts import Accounts
from worker.config.settings import Settings


def examine(settings: Settings, accounts: Accounts) -> Iterator[Finding]:
    """Yield what there is to say of the settings."""
    environments = " and ".join(sorted({each.settings.environment for each in accounts}))
    yield fine("settings", f"environment {environments}, archive {settings.archive_url}")
    if settings.accounts:
        said, warnings = f"{len(accounts)}: {', '.join(accounts.names)}", "; ".join(accounts.warnings)
        yield warning("accounts", said, warnings) if warnings else fine("accounts", said)
    weak = accounts.weak_secrets()
    if weak:
        yield warning("secrets", f"{' and '.join(weak)} could be guessed", "`openssl rand -hex 32` makes a good secret")


def api_version(settings: Settings) -> Finding:
    """Return whether the version of RiskOS's API is pinned."""
    if settings.api_version is None:
        return warning(
            "API version",
            "DOCV_API_VERSION is not set, so RiskOS chooses the version of its answers",
            "set it to the version that you tested with, such as 2025-01-01.orion",
        )
    return fine("API version", f"{settings.api_version} is sent with each request")


def key(settings: Settings) -> Finding:
    """Return whether an account has a key."""
    if settings.api_key is None:
        return wrong("API key", "there is none", "put the key of your RiskOS account into DOCV_API_KEY, or into .env")
    return fine("API key", "there is one")
