"""Examine the settings: they could be read; is what is needed there, and is it strong?"""

from collections.abc import Iterator

from scripts.doctor.finding import Finding, fine, warning, wrong
from worker.settings import Settings


def examine(settings: Settings) -> Iterator[Finding]:
    """Yield what there is to say of the settings."""
    yield fine("settings", f"environment {settings.environment}, archive {settings.archive_url}")
    yield _key(settings)
    weak = settings.weak_doors()
    if weak:
        yield warning("secrets", f"{' and '.join(weak)} could be guessed", "`openssl rand -hex 32` makes a good secret")


def _key(settings: Settings) -> Finding:
    if settings.api_key is None:
        return wrong("API key", "there is none", "put the key of your RiskOS account into DOCV_API_KEY, or into .env")
    return fine("API key", "there is one")
