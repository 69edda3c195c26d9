"""The command `retention check`: validate a schedule, print its rules, and explain what it says about evaluations."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

import click
import orjson
from rich.console import Console
from rich.table import Table

from scripts.archive_access.open_bucket import open_read_only_bucket
from scripts.console.exit_codes import NOT_ALL, OK
from scripts.console.options import account_option, json_option
from scripts.console.read_only import run_read_only
from scripts.ids.arguments import ParsedIds, read_ids
from scripts.retention.explanation import (
    RULE_COLUMNS,
    DocumentDecision,
    describe_decision,
    describe_rule,
    find_notes,
    rule_as_json,
)
from scripts.retention.sample import MOST, sample_evaluations
from scripts.verify.ordered_gather import ordered_gather
from tasks.errors import IntegrityError
from tasks.model.evaluation import Evaluation
from tasks.retention.decision import decide_held
from tasks.retention.event import read_events
from tasks.retention.schedule import Schedule, load_schedule, read_schedule
from tasks.storage.bucket import Bucket
from tasks.storage.manifest import read_manifest
from worker.config.accounts import load_account_settings
from worker.config.settings import Settings, SettingsError

_AT_ONCE = 32
_SETTING = "DOCV_RETENTION: "


@dataclass(frozen=True, slots=True)
class CheckedEvaluation:
    """What the schedule says about an evaluation.

    Attributes:
        eval_id: the evaluation.
        documents: the decision about each document that the archive holds.
        problem: why there are no decisions, or None.
    """

    eval_id: str
    documents: tuple[DocumentDecision, ...] = ()
    problem: str | None = None


@click.command("check")
@click.argument("file", metavar="[FILE]", required=False, type=click.Path(path_type=Path))
@click.option(
    "--sample", type=click.IntRange(1, MOST), metavar="N", help="Explain N evaluations of the archive, the same ones."
)
@click.option(
    "--ids", "sources", metavar="ID|FILE|-", multiple=True, help="Explain these evaluations; may be given repeatedly."
)
@account_option()
@json_option("Print one JSON object for the schedule, and one for each evaluation.")
def check(
    file: Path | None, sample: int | None, sources: tuple[str, ...], account: str | None, *, as_json: bool
) -> int:
    """Check a retention schedule, and show which rule decides about documents, and why.

    FILE is by default the one that DOCV_RETENTION names. Exit code 2 means that it is not a valid schedule, and 1 that
    an evaluation of --ids is not in the archive. Nothing is changed, and no name of a document is printed.
    """
    settings = load_account_settings(account)
    schedule = _load(settings, file)
    ids = read_ids(sources, settings) if sources else ParsedIds((), (), 0)
    _print_schedule(schedule, as_json=as_json)
    if not (ids.eval_ids or sample):
        return OK
    code = run_read_only(_explain(settings, schedule, ids.eval_ids, sample or 0, as_json=as_json))
    return NOT_ALL if ids.bad and code == OK else code


def _load(settings: Settings, file: Path | None) -> Schedule:
    if file is not None:
        try:
            return read_schedule(file)
        except SettingsError as error:
            raise SettingsError(tuple(line.removeprefix(_SETTING) for line in error.lines)) from None
    if (schedule := load_schedule(settings)) is None:
        raise click.UsageError("there is no schedule, so every document is kept: give FILE, or set DOCV_RETENTION")
    return schedule


def _print_schedule(schedule: Schedule, *, as_json: bool) -> None:
    if as_json:
        overlaps = [[each.name for each in pair] for pair in schedule.find_overlaps()]
        facts = {"grace": str(schedule.grace), "max_per_run": schedule.max_per_run, "events": sorted(schedule.events)}
        rules = [rule_as_json(rule) for rule in schedule.rule]
        click.echo(orjson.dumps({"schedule": {**facts, "overlaps": overlaps, "rules": rules}}))
        return
    table = Table(box=None, pad_edge=False)
    for title in RULE_COLUMNS:
        table.add_column(title, overflow="fold")
    for rule in schedule.rule:
        table.add_row(*describe_rule(rule))
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 200
    console.print(table, markup=False)
    for note in find_notes(schedule):
        click.echo(note)


async def _explain(
    settings: Settings, schedule: Schedule, eval_ids: tuple[str, ...], sample: int, *, as_json: bool
) -> int:
    code = OK
    async with open_read_only_bucket(settings) as bucket:

        async def selected() -> AsyncIterator[str]:
            for eval_id in eval_ids:
                yield eval_id
            for eval_id in await sample_evaluations(bucket, settings.environment, sample) if sample else ():
                if eval_id not in eval_ids:
                    yield eval_id

        async def one(eval_id: str) -> CheckedEvaluation:
            return await check_evaluation(bucket, Evaluation(eval_id, settings.environment), schedule)

        async with aclosing(ordered_gather(_AT_ONCE, one, selected())) as checked:  # type: ignore[type-var]  # it is a generator
            async for each in checked:
                _print_evaluation(each, as_json=as_json)
                code = NOT_ALL if each.problem else code
    return code


async def check_evaluation(bucket: Bucket, evaluation: Evaluation, schedule: Schedule) -> CheckedEvaluation:
    """Return what the schedule says about the documents of an evaluation.

    Raises:
        StorageError: the archive does not answer.
    """
    try:
        stored, events = await asyncio.gather(read_manifest(bucket, evaluation), read_events(bucket, evaluation))
    except IntegrityError as error:
        return CheckedEvaluation(evaluation.eval_id, problem=str(error))
    if stored is None:
        return CheckedEvaluation(evaluation.eval_id, problem="it is not in the archive")
    decisions = [
        DocumentDecision(each.kind, each.sha256, decide_held(schedule, stored.manifest, each, events))
        for each in stored.manifest.documents
    ]
    return CheckedEvaluation(evaluation.eval_id, tuple(decisions))


def _print_evaluation(checked: CheckedEvaluation, *, as_json: bool) -> None:
    if as_json:
        documents = [each.as_json() for each in checked.documents]
        click.echo(orjson.dumps({"eval_id": checked.eval_id, "documents": documents, "problem": checked.problem}))
    elif checked.problem:
        click.echo(f"{checked.eval_id}: {checked.problem}", err=True)
    elif not checked.documents:
        click.echo(f"{checked.eval_id}: the archive holds no document of it")
    for each in () if as_json else checked.documents:
        click.echo(f"{checked.eval_id} {each.kind} {each.sha256[:12]}: {describe_decision(each.decision)}")
