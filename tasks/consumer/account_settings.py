"""An account of the settings, as the work needs it."""

from tasks.model.account import Account, Allowance
from worker.config.accounts_file import AccountSettings


def make_account(known: AccountSettings) -> Account:
    """Return an account as the work needs it.

    Raises:
        SettingsError: its key is missing.
    """
    settings = known.settings
    return Account(
        name=known.name,
        environment=settings.environment,
        url=settings.base_url,
        key=settings.need_api_key(),
        api_version=settings.api_version,
        allowance=make_allowance(known),
    )


def make_allowance(known: AccountSettings) -> Allowance:
    """Return what an account may send; whoever only looks needs no key for that."""
    settings = known.settings
    return Allowance(
        rate=settings.rate,
        burst=settings.burst,
        backfill_share=settings.backfill_share,
        daily_quota=settings.quota,
        live_reserve=settings.live_reserve,
        shared_with=known.shares_rate_with,
    )
