"""Read the file ``DOCV_ACCOUNTS``, which has a table for each account.

The table of an account overrides the settings of the process; see `docs/accounts.md`.
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
"""Name of the account that the settings describe, and that is used if no account is named."""
MOST = 100
"""Maximum number of accounts in a file."""
MOST_BYTES = 64 << 10
"""Maximum size of the file."""
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,31}", re.ASCII)
# `archive` and `backfill` are names of holds, and `other` stands for all unknown accounts in metrics.
_RESERVED = {"archive", "backfill", "other"}
_SETTINGS = (
    *("environment", "riskos_url", "api_version", "client_cert", "client_key"),
    *("rate", "burst", "daily_quota", "backfill_share", "live_reserve"),
    *("leave_rate", "leave_daily", "webhook_secrets"),
)
_WORD = re.compile(r"[a-z_]{1,20}", re.ASCII)
_KNOWN = ("api_key", "api_key_file", *_SETTINGS, "shares_rate_with")
_SHARED = ("rate", "burst", "daily_quota", "leave_rate", "leave_daily")
_PLACE = re.compile(r"at line \d+, column \d+|at end of document")


@dataclass(frozen=True, slots=True)
class AccountSettings:
    """The settings of one account.

    Attributes:
        name: its name.
        settings: the settings of the process, overridden by those of the account.
        shares_rate_with: name of the account whose rate and quota it shares; None if they are its own.
    """

    name: str
    settings: Settings
    shares_rate_with: str | None = None


def read_accounts(file: Path, settings: Settings) -> tuple[dict[str, AccountSettings], tuple[str, ...]]:
    """Return the accounts of a process with this file, and a sentence for each setting that should be changed.

    Raises:
        SettingsError: the file cannot be read or is not valid; one line for each problem.
    """
    reader = _AccountsReader(file, settings)
    known = reader.read_all()
    if reader.problems:
        raise SettingsError(tuple(reader.problems))
    return known, tuple(reader.warnings)


class _AccountsReader:
    """Reads the file, and collects its problems and warnings."""

    def __init__(self, file: Path, settings: Settings) -> None:
        self._file, self._settings = file, settings
        self._own = {DEFAULT: AccountSettings(DEFAULT, settings)} if settings.api_key else {}
        self.problems: list[str] = []
        self.warnings: list[str] = []

    def read_all(self) -> dict[str, AccountSettings]:
        tables = {name: table for name, table in self._read_tables().items() if self._is_account(name, table)}
        read = {name: self._read(name, table) for name, table in tables.items()}
        made = {name: self._make_settings(name, values) for name, values in read.items() if values is not None}
        known = self._own | {name: self._check_sharing(name, read[name] or {}, made) for name in made}
        self._check_keys(known)
        return known

    def _check_keys(self, known: Mapping[str, AccountSettings]) -> None:
        """Report accounts that have the same key."""
        by_key = defaultdict[str, list[str]](list)
        for each in known.values():
            if each.settings.api_key:
                by_key[each.settings.api_key.get_secret_value()].append(each.name)
        for names in by_key.values():
            if len(names) > 1:
                self._add_problem(f"{' and '.join(names)} have the same key; a key is one account")

    def _add_problem(self, what: str, name: str = "") -> None:
        self.problems.append(f"DOCV_ACCOUNTS: {self._file}{f' [{name}]' if name else ''}: {what}")

    def _read_tables(self) -> dict[str, Any]:
        text = self._read_text(self._file)
        if text is None:
            return {}
        try:
            tables = tomllib.loads(text)
        except (tomllib.TOMLDecodeError, RecursionError) as error:
            # The rest of the message may repeat a secret from the file.
            place = _PLACE.search(str(error))
            self._add_problem(f"it is not TOML{f' ({place[0]})' if place else ''}")
            return {}
        if not 1 <= len(tables) <= MOST:
            self._add_problem(f"expected 1 to {MOST} accounts, a table [name] each; there are {len(tables)}")
            return {}
        return tables

    def _read_text(self, file: Path, name: str = "") -> str | None:
        try:
            with file.open("rb") as opened:
                mode = os.fstat(opened.fileno()).st_mode
                data = opened.read(MOST_BYTES + 1)
            if len(data) <= MOST_BYTES:
                if mode & stat.S_IROTH:
                    self.warnings.append(f"every user of this machine can read {file}; run chmod o-r")
                return data.decode()
            self._add_problem(f"{file} is larger than {MOST_BYTES >> 10} KiB", name)
        except UnicodeDecodeError:
            self._add_problem(f"{file} is not text in UTF-8", name)
        except OSError as error:
            self._add_problem(f"{file} cannot be read: {error.strerror}", name)
        except ValueError:
            self._add_problem("the file name is not a valid path", name)
        return None

    def _is_account(self, name: str, table: object) -> bool:
        before = len(self.problems)
        if not isinstance(table, dict):
            self._add_problem("there is a key outside of a table; each account is a table [name]")
        elif not _NAME.fullmatch(name):
            self._add_problem(
                "the name of an account has 1 to 32 lower-case letters, digits and hyphens, and no hyphen first"
            )
        elif name in _RESERVED:
            self._add_problem("this name is reserved", name)
        elif name == DEFAULT and self._settings.api_key:
            self._add_problem("DOCV_API_KEY describes this account already; remove one of them", name)
        return len(self.problems) == before

    def _read(self, name: str, table: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the values of a table, or None if it has a problem."""
        before, values = len(self.problems), dict[str, Any]()
        for key in table.keys() - set(_KNOWN):
            near = difflib.get_close_matches(key, _KNOWN, 1)
            # If name and value were swapped, the name may be a secret.
            shown = key if near or _WORD.fullmatch(key) else "something"
            self._add_problem(
                f"{shown} is not a key of an account" + (f"; did you mean {near[0]}?" if near else ""), name
            )
        for key in _SETTINGS:
            if key in table:
                values |= self._parse_value(name, key, table[key])
        values |= self._read_key(name, table)
        if "shares_rate_with" in table:
            values["shares_rate_with"] = table["shares_rate_with"]
        return values if len(self.problems) == before else None

    def _parse_value(self, name: str, key: str, value: object) -> dict[str, Any]:
        field = Settings.model_fields[key]
        try:
            if isinstance(value, bool):
                raise ValueError("it cannot be true or false")  # noqa: TRY301, TRY004  # reported below
            kind: Any = Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation
            found = TypeAdapter(kind).validate_python(value)
        except ValidationError as error:
            for problem in error.errors(include_url=False, include_input=False, include_context=False):
                self._add_problem(f"{key}: {problem['msg'].removeprefix('Value error, ')}", name)
            return {}
        except ValueError as error:
            self._add_problem(f"{key}: {error}", name)
            return {}
        return {key: self._file.parent / found if isinstance(found, Path) else found}

    def _read_key(self, name: str, table: Mapping[str, Any]) -> dict[str, Any]:
        text, file = table.get("api_key"), table.get("api_key_file")
        if (text is None) == (file is None) or not isinstance(text if file is None else file, str):
            self._add_problem("expected either api_key or api_key_file, as a text", name)
            return {}
        key = text if file is None else self._read_text(self._file.parent / file, name)
        if key is None:
            return {}
        if not is_token(key.strip()):
            self._add_problem("its key must be one word of visible ASCII characters", name)
        return {"api_key": SecretStr(key.strip())}

    def _make_settings(self, name: str, values: Mapping[str, Any]) -> AccountSettings:
        own = {key: value for key, value in values.items() if key != "shares_rate_with"}
        # The client key of the process does not match a certificate of the account.
        own |= {} if "client_cert" not in own else {"client_key": own.get("client_key")}
        return AccountSettings(name, self._settings.model_copy(update=own), values.get("shares_rate_with"))

    def _check_sharing(
        self, name: str, values: Mapping[str, Any], made: Mapping[str, AccountSettings]
    ) -> AccountSettings:
        """Return an account with the rate and the quota of the account that it shares them with."""
        account, shared = made[name], made[name].shares_rate_with
        if shared is None:
            return account
        other = (self._own | dict(made)).get(shared) if isinstance(shared, str) and shared != name else None
        if other is None or other.shares_rate_with is not None:
            self._add_problem("shares_rate_with must name another account, one that shares with none itself", name)
            return account
        inherited = {key: getattr(other.settings, key) for key in _SHARED if key not in values}
        found = account.settings.model_copy(update=inherited)
        if _shared_values(found) != _shared_values(other.settings):
            what = "rate, burst, quota or what is left to others"
            self._add_problem(f"{what} differ from those of {shared}, which it shares", name)
        return AccountSettings(name, found, shared)


def _shared_values(settings: Settings) -> tuple[object, ...]:
    return settings.rate, settings.burst, settings.quota, settings.leave_rate, settings.leave_daily
