"""The accounts of this process: the one that the settings describe, and those in the file ``DOCV_ACCOUNTS``."""

from collections.abc import Iterator, Mapping

from worker.config.accounts_file import DEFAULT, AccountSettings, read_accounts
from worker.config.settings import Settings, SettingsError, load_settings


class Accounts:
    """The accounts that this process knows, by name.

    Args:
        known: the accounts.
        warnings: a sentence for each setting that works but should be changed.
    """

    def __init__(self, known: Mapping[str, AccountSettings], warnings: tuple[str, ...] = ()) -> None:
        self._known = dict(known)
        self.warnings = warnings

    def __iter__(self) -> Iterator[AccountSettings]:
        return iter(self._known.values())

    def __len__(self) -> int:
        return len(self._known)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the accounts."""
        return tuple(self._known)

    def find(self, name: str | None) -> AccountSettings | None:
        """Return the account with a name; without a name, return ``default`` or the only one. Return None otherwise."""
        if name is not None:
            return self._known.get(name)
        only = next(iter(self._known.values())) if len(self._known) == 1 else None
        return self._known.get(DEFAULT, only)

    def select(self, name: str | None) -> AccountSettings:
        """Return an account as ``find`` does, or fail with a message for the user.

        Raises:
            SettingsError: there is no such account, or there are several and none was named.
        """
        found = self.find(name)
        if found is None:
            known = f"known are {', '.join(self.names)}"
            what = "name an account: no account is called default" if name is None else f"no account {name!r}"
            raise SettingsError((f"{what}: {known}",))
        return found

    def secrets(self) -> list[str]:
        """Return every text that must not appear in a log line."""
        return list(dict.fromkeys(secret for each in self for secret in each.settings.secrets()))


def load_accounts(settings: Settings) -> Accounts:
    """Return the accounts of a process. The file is read once, when the process starts.

    Raises:
        SettingsError: the file cannot be read or is not valid; one line for each problem.
    """
    plain = settings.plain_connections()
    if settings.accounts is None:
        return Accounts({DEFAULT: AccountSettings(DEFAULT, settings)}, plain)
    known, warnings = read_accounts(settings.accounts, settings)
    return Accounts(known, (*plain, *warnings))


def load_account_settings(account: str | None) -> Settings:
    """Return the settings of an account, for a command that reads its evaluations in the archive.

    Raises:
        SettingsError: there is no such account, or a setting is missing or not valid.
    """
    return load_accounts(load_settings()).select(account).settings
