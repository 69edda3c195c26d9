"""The command: examine one thing after the other, and say of each how it is."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

import click
import orjson
from rich.console import Console
from rich.table import Table

from scripts.archive_access.s3_client import open_s3_archive
from scripts.console.exit_codes import NOT_ALL, OK, UNREACHABLE
from scripts.console.options import json_option
from scripts.doctor import configuration, folder, redis, riskos
from scripts.doctor.disk import check_state_folder
from scripts.doctor.finding import Finding, State, wrong
from worker.config.accounts import Accounts, load_accounts
from worker.config.accounts_file import AccountSettings
from worker.config.settings import Settings, SettingsError, load_settings

_STYLES = {State.FINE: "green", State.WARNING: "yellow", State.WRONG: "bold red"}


@click.command()
@json_option()
def doctor(*, as_json: bool) -> int:
    """Examine this installation: what is wrong, and how to mend it."""
    try:
        settings = load_settings()
        accounts = load_accounts(settings)
    except SettingsError as error:
        findings = [wrong("settings", line, "see README.md, Settings") for line in error.lines]
    else:
        findings = asyncio.run(_all(settings, accounts))
    if as_json:
        click.echo(orjson.dumps({"findings": [_facts(each) for each in findings]}))
    else:
        _print(findings)
    return exit_code(findings)


def exit_code(findings: Iterable[Finding]) -> int:
    """Return 0 where nothing is wrong, 3 where a service cannot be reached, else 1."""
    bad = [each for each in findings if each.state is State.WRONG]
    if any(each.unreachable for each in bad):
        return UNREACHABLE
    return NOT_ALL if bad else OK


async def _all(settings: Settings, accounts: Accounts) -> list[Finding]:
    return [finding async for finding in _each(settings, accounts)]


async def _each(settings: Settings, accounts: Accounts) -> AsyncIterator[Finding]:
    for finding in configuration.examine(settings, accounts):
        yield finding
    for account in accounts:
        async for finding in _of_account(account):
            yield replace(finding, subject=f"{account.name}: {finding.subject}") if len(accounts) > 1 else finding
    async for finding in redis.examine(settings, accounts.names):
        yield finding
    if settings.broker_url:
        for finding in await asyncio.to_thread(_broker, settings.broker_url.get_secret_value()):
            yield finding
    for finding in await asyncio.to_thread(_archive, settings):
        yield finding
    yield check_state_folder(settings.state_dir)


def _broker(url: str) -> list[Finding]:
    from scripts.doctor import rabbitmq  # noqa: PLC0415  # kombu takes a while that a user of Redis need not wait

    return list(rabbitmq.examine(url))


async def _of_account(account: AccountSettings) -> AsyncIterator[Finding]:
    yield configuration.key(account.settings)
    async for finding in riskos.examine(account):
        yield finding


def _archive(settings: Settings) -> list[Finding]:
    archive = open_s3_archive(settings)
    if archive is None:
        return list(folder.examine(Path(unquote(urlsplit(settings.archive_url).path))))
    from scripts.doctor import bucket  # noqa: PLC0415  # botocore takes a while that a folder's user need not wait

    return list(bucket.examine(archive, settings))


def _facts(finding: Finding) -> dict[str, object]:
    return {"what": finding.subject, "state": finding.state, "said": finding.message, "mend": finding.fix}


def _print(findings: Iterable[Finding]) -> None:
    table = Table(box=None, pad_edge=False, show_header=False)
    for each in findings:
        said = f"{each.message}: {each.fix}" if each.fix else each.message
        table.add_row(f"[{_STYLES[each.state]}]{each.state}[/]", each.subject, said)
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 240
    console.print(table)
