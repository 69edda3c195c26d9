"""The accounts of this process: the one that the settings speak of, and those of the file ``DOCV_ACCOUNTS``."""

from collections.abc import Iterator, Mapping

from worker.config.accounts_file import DEFAULT, AccountSettings, read_accounts
from worker.config.settings import Settings, SettingsError, load_settings


class Accounts:
    """Every account that this process knows, by name.

    Args:
        known: the accounts.
        warnings: what works, and should not be so; a sentence each.
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
        """What they are called."""
        return tuple(self._known)

    def find(self, name: str | None) -> AccountSettings | None:
        """Return an account; where none is named ``default``, or the only one. None where that is nobody."""
        if name is not None:
            return self._known.get(name)
        only = next(iter(self._known.values())) if len(self._known) == 1 else None
        return self._known.get(DEFAULT, only)

    def select(self, name: str | None) -> AccountSettings:
        """Return an account, as ``find`` does, for a person who named it or did not.

        Raises:
            SettingsError: there is no such account, or there are several to choose from.
        """
        found = self.find(name)
        if found is None:
            known = f"known are {', '.join(self.names)}"
            what = "name the account, for there is none called default" if name is None else f"no account {name!r}"
            raise SettingsError((f"{what}: {known}",))
        return found

    def secrets(self) -> list[str]:
        """Return every text that must not appear in a log line."""
        return list(dict.fromkeys(secret for each in self for secret in each.settings.secrets()))

    def weak_secrets(self) -> list[str]:
        """Return what holds a secret so short that it could be guessed."""
        weak: dict[str, None] = {}
        for each in self:
            for setting in each.settings.weak_secrets():
                own = setting == "DOCV_WEBHOOK_SECRETS" and each.name != DEFAULT
                weak[f"webhook_secrets of account {each.name}" if own else setting] = None
        return list(weak)


def load_accounts(settings: Settings) -> Accounts:
    """Return the accounts of a process; the file is read once, at its start.

    Raises:
        SettingsError: the file cannot be read, or something in it is unknown or impossible; one line for each.
    """
    if settings.accounts is None:
        return Accounts({DEFAULT: AccountSettings(DEFAULT, settings)})
    return Accounts(*read_accounts(settings.accounts, settings))


def load_account_settings(account: str | None) -> Settings:
    """Return the settings of an account: for a command that looks where its evaluations are in the archive.

    Raises:
        SettingsError: there is no such account, or something in the settings is missing or impossible.
    """
    return load_accounts(load_settings()).select(account).settings
