"""The command `legal-hold release`: release every evaluation of a matter."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

import click

from scripts.console.exit_codes import NOT_ALL, OK
from scripts.console.formatting import format_count
from scripts.console.interrupts import interruptible
from scripts.console.operator_name import by_option, check_line, operator_name
from scripts.console.options import json_option
from scripts.console.read_only import ProgressLine
from scripts.legal_hold.holder import Holder
from scripts.legal_hold.members import Members, open_members
from scripts.legal_hold.opening import find_matter, open_hold_stores
from scripts.legal_hold.results import AT_ONCE, ResultPrinter
from scripts.verify.ordered_gather import ordered_gather
from tasks.model.evaluation import Evaluation
from tasks.model.matter_name import parse_matter
from tasks.storage.matter import begin_release, complete_release
from worker.config.settings import Settings, load_settings


@click.command("release")
@click.argument("matter")
@click.option("--reason", required=True, help="Reason, which the archive keeps. Do not enter personal data.")
@by_option
@json_option("Print one JSON object per line.")
def release(matter: str, reason: str, by: str | None, *, as_json: bool) -> int:
    """Release every evaluation of a matter.

    Evaluations under another matter stay under that one. Nothing can be added to the matter any more. If the command
    was interrupted, the evaluations that it has not reached stay under the matter: run it again.

    Exit code 1 means that an evaluation could not be released.
    """
    name, why, who = parse_matter(matter), check_line(reason, "--reason"), operator_name(by)
    settings, printer = load_settings(), ResultPrinter("released", as_json=as_json)
    return interruptible(lambda: asyncio.run(_release(settings, name, why, who, printer)))


async def _release(settings: Settings, matter: str, reason: str, by: str, printer: ResultPrinter) -> int:
    async with open_hold_stores(settings) as stores:
        await find_matter(stores.bucket, matter)
        await begin_release(stores.bucket, matter, reason, by)
        holder = Holder(stores.bucket, stores.s3, matter, tags=settings.tags)
        async with open_members(stores.bucket, matter, settings) as members:
            with ProgressLine("legal-hold release", members.total) as progress:
                released = ordered_gather(AT_ONCE, holder.release, _iterate(members))
                async with aclosing(released) as results:  # type: ignore[type-var]  # it is a generator
                    async for result in results:
                        printer.print(result)
                        progress.update(printer.count)
        if not printer.failed:
            await complete_release(stores.bucket, matter)
    if not printer.as_json:
        _print_totals(matter, printer)
    return NOT_ALL if printer.failed else OK


async def _iterate(members: Members) -> AsyncIterator[Evaluation]:
    for environment, ids in members.ids.items():
        for eval_id in ids:
            yield Evaluation(eval_id, environment)


def _print_totals(matter: str, printer: ResultPrinter) -> None:
    if printer.failed:
        stay = format_count(printer.failed, "evaluation", "was", "were")
        click.echo(f"matter {matter} is not released: {stay} not; run the same command again", err=True)
        return
    kept = f", {printer.kept:,} of them still under another matter" if printer.kept else ""
    click.echo(f"matter {matter} is released: {format_count(printer.ok, 'evaluation')}{kept}")
