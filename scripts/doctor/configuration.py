"""Check settings, the retention schedule, and that connections to other machines are encrypted."""

from collections.abc import Iterator

from scripts.console.formatting import format_count
from scripts.doctor.finding import Finding, fine, warning, wrong
from tasks.retention.schedule import load_schedule
from worker.config.accounts import Accounts
from worker.config.redis_url import split_url
from worker.config.settings import Settings, SettingsError

_SLACK = "hooks.slack.com"


def examine(settings: Settings, accounts: Accounts) -> Iterator[Finding]:
    """Yield the findings about the settings."""
    environments = " and ".join(sorted({each.settings.environment for each in accounts}))
    yield fine("settings", f"environment {environments}, archive {settings.archive_url}")
    if settings.accounts:
        message = f"{len(accounts)}: {', '.join(accounts.names)}"
        warnings = "; ".join(each for each in accounts.warnings if each not in settings.plain_connections())
        yield warning("accounts", message, warnings) if warnings else fine("accounts", message)
    yield from examine_notifications(settings)
    yield from examine_schedule(settings)
    for each in settings.plain_connections():
        message, _, fix = each.partition("; ")
        yield warning("connection", message, fix)


def examine_notifications(settings: Settings) -> Iterator[Finding]:
    """Yield the findings about notifications; they show only the host, since the path may be a secret."""
    if settings.notify_url is None:
        if settings.notify_secret:
            yield warning(
                "notifications", "DOCV_NOTIFY_SECRET is set, but DOCV_NOTIFY_URL is not", "set both, or neither"
            )
        return
    host = split_url(settings.notify_url.get_secret_value()).hostname
    if settings.notify_secret:
        yield fine("notifications", f"to {host}, signed")
    elif host == _SLACK:
        yield fine("notifications", f"to {host}")
    else:
        yield warning(
            "notifications",
            f"to {host}, not signed",
            "set DOCV_NOTIFY_SECRET, and verify the signature at the receiver",
        )


def examine_schedule(settings: Settings) -> Iterator[Finding]:
    """Yield the findings about the retention schedule."""
    try:
        schedule = load_schedule(settings)
    except SettingsError as error:
        yield from (wrong("retention", line, "see docs/retention.md") for line in error.lines)
        return
    if schedule:
        yield fine("retention", f"{format_count(len(schedule.rule), 'rule')} in {settings.retention}")


def check_api_version(settings: Settings) -> Finding:
    """Return whether the version of RiskOS's API is pinned."""
    if settings.api_version is None:
        return warning(
            "API version",
            "DOCV_API_VERSION is not set, so RiskOS chooses the version of its answers",
            "set it to the version that you tested with, such as 2025-01-01.orion",
        )
    return fine("API version", f"{settings.api_version} is sent with each request")


def check_key(settings: Settings) -> Finding:
    """Return whether an account has a key."""
    if settings.api_key is None:
        return wrong("API key", "not set", "put the key of your RiskOS account into DOCV_API_KEY, or into .env")
    return fine("API key", "set")
