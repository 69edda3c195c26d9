"""The file ``DOCV_ACCOUNTS``, a table for each account: read once at start, what is wrong with it told in lines.

The settings of an account are those of the process with its table on top: `docs/accounts.md`.
"""

import difflib
import os
import re
import stat
import tomllib
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import SecretStr, TypeAdapter, ValidationError

from worker.config.settings import Settings, SettingsError
from worker.config.validators import is_token

DEFAULT = "default"
"""Name of the account that ``DOCV_API_KEY`` and the other settings speak of, and that is meant where none is named."""
MOST = 100
"""Most accounts in a file."""
MOST_BYTES = 64 << 10
"""Largest file."""
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,31}", re.ASCII)
# What stands still beside an account is called so, and in figures every account that nobody knows.
_RESERVED = {"archive", "backfill", "other"}
_OF_SETTINGS = (
    *("environment", "riskos_url", "api_version", "client_cert", "client_key"),
    *("rate", "burst", "daily_quota", "backfill_share", "live_reserve"),
    *("leave_rate", "leave_daily", "webhook_secrets"),
)
_WORD = re.compile(r"[a-z_]{1,20}", re.ASCII)
_KNOWN = ("api_key", "api_key_file", *_OF_SETTINGS, "shares_rate_with")
_SHARED = ("rate", "burst", "daily_quota", "leave_rate", "leave_daily")
_PLACE = re.compile(r"at line \d+, column \d+|at end of document")


@dataclass(frozen=True, slots=True)
class AccountSettings:
    """The settings of one account.

    Attributes:
        name: what it is called.
        settings: those of the process, with its own on top.
        shares_rate_with: name of the account whose rate and quota it shares; None where they are its own.
    """

    name: str
    settings: Settings
    shares_rate_with: str | None = None


def read_accounts(file: Path, settings: Settings) -> tuple[dict[str, AccountSettings], tuple[str, ...]]:
    """Return the accounts of a process with this file, and what works but should not be as it is.

    Raises:
        SettingsError: it cannot be read, or something in it is unknown or impossible; one line for each.
    """
    reading = _AccountsReader(file, settings)
    known = reading.accounts()
    if reading.wrong:
        raise SettingsError(tuple(reading.wrong))
    return known, tuple(reading.warnings)


class _AccountsReader:
    """The file while it is read, and what is wrong with it."""

    def __init__(self, file: Path, settings: Settings) -> None:
        self._file, self._settings = file, settings
        self._own = {DEFAULT: AccountSettings(DEFAULT, settings)} if settings.api_key else {}
        self.wrong: list[str] = []
        self.warnings: list[str] = []

    def accounts(self) -> dict[str, AccountSettings]:
        tables = {name: table for name, table in self._tables().items() if self._is_account(name, table)}
        read = {name: self._read(name, table) for name, table in tables.items()}
        made = {name: self._make_settings(name, values) for name, values in read.items() if values is not None}
        known = self._own | {name: self._check_sharing(name, read[name] or {}, made) for name in made}
        self._compare(known)
        return known

    def _compare(self, known: Mapping[str, AccountSettings]) -> None:
        """Find the accounts that have one key between them."""
        by_key = defaultdict[str, list[str]](list)
        for each in known.values():
            if each.settings.api_key:
                by_key[each.settings.api_key.get_secret_value()].append(each.name)
        for names in by_key.values():
            if len(names) > 1:
                self._complain(f"{' and '.join(names)} have the same key; a key is one account")

    def _complain(self, what: str, name: str = "") -> None:
        self.wrong.append(f"DOCV_ACCOUNTS: {self._file}{f' [{name}]' if name else ''}: {what}")

    def _tables(self) -> dict[str, Any]:
        text = self._text(self._file)
        if text is None:
            return {}
        try:
            tables = tomllib.loads(text)
        except (tomllib.TOMLDecodeError, RecursionError) as error:
            # The rest of its sentence may repeat what stands there.
            place = _PLACE.search(str(error))
            self._complain(f"it is no TOML{f' ({place[0]})' if place else ''}")
            return {}
        if not 1 <= len(tables) <= MOST:
            self._complain(f"expected are 1 to {MOST} accounts, a table [name] each; there are {len(tables)}")
            return {}
        return tables

    def _text(self, file: Path, name: str = "") -> str | None:
        try:
            with file.open("rb") as opened:
                mode = os.fstat(opened.fileno()).st_mode
                data = opened.read(MOST_BYTES + 1)
            if len(data) <= MOST_BYTES:
                if mode & stat.S_IROTH:
                    self.warnings.append(f"{file} can be read by everybody on this machine; chmod o-r would do")
                return data.decode()
            self._complain(f"{file} is larger than {MOST_BYTES >> 10} KiB", name)
        except UnicodeDecodeError:
            self._complain(f"{file} is no text in UTF-8", name)
        except OSError as error:
            self._complain(f"{file} cannot be read: {error.strerror}", name)
        except ValueError:
            self._complain("what names a file is no path", name)
        return None

    def _is_account(self, name: str, table: object) -> bool:
        before = len(self.wrong)
        if not isinstance(table, dict):
            self._complain("there is a key outside of a table; each account is a table [name]")
        elif not _NAME.fullmatch(name):
            self._complain("the name of an account has 1 to 32 small letters, digits and hyphens, no hyphen first")
        elif name in _RESERVED:
            self._complain("an account cannot be called so", name)
        elif name == DEFAULT and self._settings.api_key:
            self._complain("DOCV_API_KEY speaks of this account already; take one of them away", name)
        return len(self.wrong) == before

    def _read(self, name: str, table: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the values of a table, or None where something is wrong."""
        before, values = len(self.wrong), dict[str, Any]()
        for key in table.keys() - set(_KNOWN):
            near = difflib.get_close_matches(key, _KNOWN, 1)
            # Whoever took a name for a value may have put a secret there.
            shown = key if near or _WORD.fullmatch(key) else "something"
            self._complain(f"{shown} is no key of an account" + (f"; did you mean {near[0]}?" if near else ""), name)
        for key in _OF_SETTINGS:
            if key in table:
                values |= self._value(name, key, table[key])
        values |= self._key(name, table)
        if "shares_rate_with" in table:
            values["shares_rate_with"] = table["shares_rate_with"]
        return values if len(self.wrong) == before else None

    def _value(self, name: str, key: str, value: object) -> dict[str, Any]:
        field = Settings.model_fields[key]
        try:
            if isinstance(value, bool):
                raise ValueError("true and false are no values of it")  # noqa: TRY301, TRY004  # told as the others are
            kind: Any = Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation
            found = TypeAdapter(kind).validate_python(value)
        except ValidationError as error:
            for problem in error.errors(include_url=False, include_input=False, include_context=False):
                self._complain(f"{key}: {problem['msg'].removeprefix('Value error, ')}", name)
            return {}
        except ValueError as error:
            self._complain(f"{key}: {error}", name)
            return {}
        return {key: self._file.parent / found if isinstance(found, Path) else found}

    def _key(self, name: str, table: Mapping[str, Any]) -> dict[str, Any]:
        text, file = table.get("api_key"), table.get("api_key_file")
        if (text is None) == (file is None) or not isinstance(text if file is None else file, str):
            self._complain("expected is api_key or api_key_file, one of them, a text", name)
            return {}
        key = text if file is None else self._text(self._file.parent / file, name)
        if key is None:
            return {}
        if not is_token(key.strip()):
            self._complain("its key must be one word of visible ASCII characters", name)
        return {"api_key": SecretStr(key.strip())}

    def _make_settings(self, name: str, values: Mapping[str, Any]) -> AccountSettings:
        own = {key: value for key, value in values.items() if key != "shares_rate_with"}
        # A certificate and the key of another one are of no use.
        own |= {} if "client_cert" not in own else {"client_key": own.get("client_key")}
        return AccountSettings(name, self._settings.model_copy(update=own), values.get("shares_rate_with"))

    def _check_sharing(
        self, name: str, values: Mapping[str, Any], made: Mapping[str, AccountSettings]
    ) -> AccountSettings:
        """Return an account with the rate and the quota that it shares: what its table leaves out is the other's."""
        account, shared = made[name], made[name].shares_rate_with
        if shared is None:
            return account
        other = (self._own | dict(made)).get(shared) if isinstance(shared, str) and shared != name else None
        if other is None or other.shares_rate_with is not None:
            self._complain("shares_rate_with must name another account, one that shares with none itself", name)
            return account
        inherited = {key: getattr(other.settings, key) for key in _SHARED if key not in values}
        found = account.settings.model_copy(update=inherited)
        if _shared_of(found) != _shared_of(other.settings):
            what = "rate, burst, quota or what is left to others"
            self._complain(f"{what} differ from those of {shared}, which it shares", name)
        return AccountSettings(name, found, shared)


def _shared_of(settings: Settings) -> tuple[object, ...]:
    return settings.rate, settings.burst, settings.quota, settings.leave_rate, settings.leave_daily
