"""The command: examine one thing after the other, and say of each how it is."""

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
from worker.config.accounts import Accounts, load_accounts
from worker.config.settings import Settings, SettingsError, load_settings

_STYLES = {State.FINE: "green", State.WARNING: "yellow", State.WRONG: "bold red"}


@click.command()
@click.option("--evaluation", "text", metavar="ID", help="Also try this evaluation, which is known to have documents.")
@account_option("Account to try it with; default, or the only one, where none is named.")
@json_option()
def doctor(text: str | None, account: str | None, *, as_json: bool) -> int:
    """Examine this installation: what is wrong, and how to mend it."""
    if account is not None and text is None:
        raise click.UsageError("--account says whom --evaluation is tried with: give both")
    eval_id = None if text is None else parse_eval_id(text)
    try:
        settings = load_settings()
        accounts = load_accounts(settings)
    except SettingsError as error:
        findings = [wrong("settings", line, "see README.md, Settings") for line in error.lines]
    else:
        tried = None if eval_id is None else (accounts.select(account).name, eval_id)
        findings = asyncio.run(_examine_all(settings, accounts, tried))
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


async def _examine_all(settings: Settings, accounts: Accounts, tried: tuple[str, str] | None) -> list[Finding]:
    """Return what there is to say of everything; ``tried`` is an account's name and the evaluation to try with it."""
    findings = list(configuration.examine(settings, accounts))
    for account in accounts:
        of_account = [configuration.key(account.settings), configuration.api_version(account.settings)]
        of_account += [each async for each in riskos.examine(account)]
        if tried and tried[0] == account.name and account.settings.api_key and exit_code(of_account) != UNREACHABLE:
            of_account.append(await evaluation.examine(account, tried[1]))
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
        table.add_row(f"[{_STYLES[each.state]}]{each.state}[/]", each.subject, escape(said))
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 1_000
    console.print(table)
