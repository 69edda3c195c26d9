"""The command: examine one thing after the other, and say of each how it is."""

import asyncio
from collections.abc import Iterable
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
        findings = asyncio.run(_examine_all(settings, accounts))
    if as_json:
        facts = [
            {"what": each.subject, "state": each.state, "said": each.message, "mend": each.fix} for each in findings
        ]
        click.echo(orjson.dumps({"findings": facts}))
    else:
        _print(findings)
    return exit_code(findings)


def exit_code(findings: Iterable[Finding]) -> int:
    """Return 0 where nothing is wrong, 3 where a service cannot be reached, else 1."""
    bad = [each for each in findings if each.state is State.WRONG]
    if any(each.unreachable for each in bad):
        return UNREACHABLE
    return NOT_ALL if bad else OK


async def _examine_all(settings: Settings, accounts: Accounts) -> list[Finding]:
    findings = list(configuration.examine(settings, accounts))
    for account in accounts:
        of_account = [configuration.key(account.settings), *[each async for each in riskos.examine(account)]]
        if len(accounts) > 1:
            of_account = [replace(each, subject=f"{account.name}: {each.subject}") for each in of_account]
        findings += of_account
    findings += [each async for each in redis.examine(settings, accounts.names)]
    if settings.broker_url:
        from scripts.doctor import rabbitmq  # noqa: PLC0415  # kombu takes a while that a user of Redis need not wait

        findings += await asyncio.to_thread(list, rabbitmq.examine(settings.broker_url.get_secret_value()))
    findings += await asyncio.to_thread(_examine_archive, settings)
    return [*findings, check_state_folder(settings.state_dir)]


def _examine_archive(settings: Settings) -> list[Finding]:
    archive = open_s3_archive(settings)
    if archive is None:
        return list(folder.examine(Path(unquote(urlsplit(settings.archive_url).path))))
    from scripts.doctor import bucket  # noqa: PLC0415  # botocore takes a while that a folder's user need not wait

    return list(bucket.examine(archive, settings))


def _print(findings: Iterable[Finding]) -> None:
    table = Table(box=None, pad_edge=False, show_header=False)
    for each in findings:
        said = f"{each.message}: {each.fix}" if each.fix else each.message
        table.add_row(f"[{_STYLES[each.state]}]{each.state}[/]", each.subject, said)
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 240
    console.print(table)
