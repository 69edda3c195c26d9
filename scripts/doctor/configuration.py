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
        yield _accounts(accounts)
    weak = accounts.weak_secrets()
    if weak:
        yield warning("secrets", f"{' and '.join(weak)} could be guessed", "`openssl rand -hex 32` makes a good secret")


def _accounts(accounts: Accounts) -> Finding:
    said = f"{len(accounts)}: {', '.join(accounts.names)}"
    if accounts.warnings:
        return warning("accounts", said, "; ".join(accounts.warnings))
    return fine("accounts", said)


def key(settings: Settings) -> Finding:
    """Return whether an account has a key."""
    if settings.api_key is None:
        return wrong("API key", "there is none", "put the key of your RiskOS account into DOCV_API_KEY, or into .env")
    return fine("API key", "there is one")
