"""Show the effective settings and the source of each."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import click
import orjson
from pydantic import SecretStr

from scripts.console.exit_codes import OK
from scripts.console.options import account_option, json_option
from worker.config.accounts import load_accounts
from worker.config.setting_sources import DEFAULT, find_source
from worker.config.settings import DOTENV, Settings, load_settings

_HIDDEN = "(hidden)"


class ShownSetting(NamedTuple):
    """One setting as it is printed.

    Attributes:
        name: environment variable.
        value: effective value as an environment variable has it, or None; secrets are hidden.
        source: where it comes from.
    """

    name: str
    value: str | None
    source: str


@click.command()
@click.option("--set", "only_set", is_flag=True, help="Show only settings that are set, not defaults.")
@account_option("Show the settings of this account in DOCV_ACCOUNTS, which override those of the process.")
@json_option()
def settings(*, only_set: bool, account: str | None, as_json: bool) -> int:
    """Show the effective settings and the source of each.

    Secrets are hidden. Environment variables take precedence over .env, and .env over secret files. The table of an
    account takes precedence over all of them.
    """
    process = load_settings()
    found = process if account is None else load_accounts(process).select(account).settings
    shown = [
        each for each in _list_settings(found, process, account) if not (only_set and each.source.startswith(DEFAULT))
    ]
    if process.accounts and account is None:
        click.echo(
            "accounts in DOCV_ACCOUNTS override some of these; --account NAME shows the settings of one", err=True
        )
    if as_json:
        click.echo(orjson.dumps({each.name: {"value": each.value, "source": each.source} for each in shown}))
        return OK
    width = max((len(each.name) for each in shown), default=0)
    for each in shown:
        click.echo(f"{each.name:<{width}}  {each.value or '-'}  ({each.source})")
    return OK


def _list_settings(found: Settings, process: Settings, account: str | None) -> Iterator[ShownSetting]:
    texts, derived = found.as_environment(), _derive(found)
    for field, value in found:
        name = f"DOCV_{field.upper()}"
        is_own = value != getattr(process, field)
        source = f"account {account} of DOCV_ACCOUNTS" if is_own else find_source(name, Path(DOTENV))
        if source == DEFAULT and field in derived:
            yield ShownSetting(name, *derived[field])
        elif value in (None, (), {}):
            yield ShownSetting(name, None, source)
        else:
            yield ShownSetting(name, _HIDDEN if _is_secret(value) else texts[name], source)


def _derive(found: Settings) -> dict[str, tuple[str, str]]:
    """Return value and source of settings that follow from others if they are not set."""
    of_environment = f"{DEFAULT} of the {found.environment} environment"
    derived = {"riskos_url": (found.base_url, of_environment)}
    if found.quota is not None:
        derived["daily_quota"] = (str(found.quota), of_environment)
    if found.find_proxy() is not None:
        derived["proxy"] = (_HIDDEN, "HTTPS_PROXY, HTTP_PROXY or ALL_PROXY")
    return derived


def _is_secret(value: object) -> bool:
    return isinstance(value, SecretStr) or (isinstance(value, tuple) and isinstance(value[0], SecretStr))
