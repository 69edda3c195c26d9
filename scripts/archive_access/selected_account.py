"""The settings of the account that a command is told of."""

from worker.config.accounts import load_accounts
from worker.config.settings import Settings, load_settings


def load_account_settings(account: str | None) -> Settings:
    """Return the settings of an account: for a command that looks where its evaluations are in the archive.

    Raises:
        SettingsError: there is no such account, or something in the settings is missing or impossible.
    """
    return load_accounts(load_settings()).select(account).settings
