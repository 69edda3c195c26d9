"""The command `doctor`: check the installation part by part, and print the findings."""

import asyncio
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

import click
import orjson
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from scripts.archive_access.s3_client import open_s3_archive
from scripts.console.exit_codes import NOT_ALL, OK, UNREACHABLE
from scripts.console.options import account_option, json_option
from scripts.doctor import configuration, evaluation, folder, redis, riskos
from scripts.doctor.disk import check_state_folder
from scripts.doctor.finding import Finding, State, wrong
from tasks.model.evaluation import parse_eval_id
from worker.clients.errors import ServiceUnavailable
from worker.config.accounts import Accounts, load_accounts
from worker.config.settings import Settings, SettingsError, load_settings

_STYLES = {State.FINE: "green", State.WARNING: "yellow", State.WRONG: "bold red"}


@click.command()
@click.option(
    "--evaluation", "text", metavar="ID", help="Also download this evaluation; choose one that has documents."
)
@click.option("--keys", is_flag=True, help="Only report which encryption keys are needed; one request per document.")
@account_option("Account for --evaluation; by default the one named default, or the only one.")
@json_option()
def doctor(text: str | None, account: str | None, *, keys: bool, as_json: bool) -> int:
    """Check settings, RiskOS, Redis, S3 and disk, and say how to fix what is wrong."""
    if keys and text is not None:
        raise click.UsageError("--keys checks the archive only: leave out --evaluation")
    if account is not None and text is None:
        raise click.UsageError("--account is the account for --evaluation: give both")
    eval_id = None if text is None else parse_eval_id(text)
    try:
        settings = load_settings()
        accounts = load_accounts(settings)
    except SettingsError as error:
        findings = [wrong("settings", line, "see docs/configuration.md") for line in error.lines]
    else:
        tried = None if eval_id is None else (accounts.select(account).name, eval_id)
        findings = asyncio.run(_examine_keys(settings) if keys else _examine_all(settings, accounts, tried))
    if as_json:
        facts = [
            {"what": each.subject, "state": each.state, "said": each.message, "mend": each.fix} for each in findings
        ]
        click.echo(orjson.dumps({"findings": facts}))
    else:
        _print(findings)
    return exit_code(findings)


def exit_code(findings: Iterable[Finding]) -> int:
    """Return 0 if nothing is wrong, 3 if a service cannot be reached, else 1."""
    bad = [each for each in findings if each.state is State.WRONG]
    if any(each.unreachable for each in bad):
        return UNREACHABLE
    return NOT_ALL if bad else OK


async def _examine_keys(settings: Settings) -> list[Finding]:
    from scripts.doctor.keys import examine_keys  # noqa: PLC0415  # cryptography takes 6 MB

    return await examine_keys(settings)


async def _examine_all(settings: Settings, accounts: Accounts, tried: tuple[str, str] | None) -> list[Finding]:
    """Return all findings; ``tried`` is an account's name and the evaluation to request with it."""
    findings = list(configuration.examine(settings, accounts))
    for account in accounts:
        of_account = [configuration.check_key(account.settings), configuration.check_api_version(account.settings)]
        of_account += [each async for each in riskos.examine(account)]
        if tried and tried[0] == account.name and account.settings.api_key and exit_code(of_account) != UNREACHABLE:
            of_account.append(await evaluation.examine(account, tried[1]))
        if len(accounts) > 1:
            of_account = [replace(each, subject=f"{account.name}: {each.subject}") for each in of_account]
        findings += of_account
    findings += [each async for each in redis.examine(settings, accounts.names)]
    if settings.broker_url:
        from scripts.doctor import rabbitmq  # noqa: PLC0415  # kombu is slow to import

        findings += await asyncio.to_thread(list, rabbitmq.examine(settings.broker_url.get_secret_value()))
    findings += await asyncio.to_thread(_examine_archive, settings)
    return [*findings, check_state_folder(settings.private_dir)]


def _examine_archive(settings: Settings) -> list[Finding]:
    try:
        archive = open_s3_archive(settings)
    except (SettingsError, ServiceUnavailable) as error:
        message, _, fix = str(error).partition("; ")
        return [wrong("AWS credentials", message, fix, unreachable=isinstance(error, ServiceUnavailable))]
    if archive is None:
        return list(folder.examine(Path(unquote(urlsplit(settings.archive_url).path))))
    from scripts.doctor import bucket  # noqa: PLC0415  # botocore is slow to import

    return list(bucket.examine(archive, settings))


def _print(findings: Iterable[Finding]) -> None:
    table = Table(box=None, pad_edge=False, show_header=False)
    for each in findings:
        text = f"{each.message}: {each.fix}" if each.fix else each.message
        table.add_row(f"[{_STYLES[each.state]}]{each.state}[/]", each.subject, escape(text))
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 1_000
    console.print(table)
