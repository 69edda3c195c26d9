"""Show the state of one evaluation, its outcome, and its revisions in the archive."""

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import click
import orjson
from rich.console import Console
from rich.table import Table
from rich.text import Text

from scripts.archive_access.evaluation_rows import EvaluationRow, make_row
from scripts.archive_access.open_bucket import open_read_only_bucket
from scripts.archive_access.revisions import NotExported, read_previous
from scripts.console.exit_codes import NOT_ALL, OK
from scripts.console.formatting import format_bytes
from scripts.console.options import account_option, json_option
from scripts.local.processes import find_redis
from scripts.overview.evaluation_status import EvaluationStatus, look_up
from tasks.errors import IntegrityError
from tasks.model.evaluation import Evaluation, parse_eval_id
from tasks.storage.bucket import Bucket
from tasks.storage.manifest import StoredManifest
from tasks.storage.manifest_records import ArchiveRecord, DisposedRecord
from worker.clients.redis import check_redis, open_redis
from worker.config.accounts import load_account_settings
from worker.config.settings import Settings, SettingsError


@dataclass(frozen=True, slots=True)
class _Found:
    """What is known about an evaluation.

    Attributes:
        evaluation: the evaluation.
        status: its state in the ledger and in the archive.
        revisions: its manifests in the archive, the current one first.
        gap: why older revisions are not among them; empty if they are.
    """

    evaluation: Evaluation
    status: EvaluationStatus
    revisions: list[StoredManifest]
    gap: str

    @property
    def disposals(self) -> tuple[DisposedRecord, ...]:
        """The documents that were disposed of."""
        return self.revisions[0].manifest.disposed if self.revisions else ()

    def rows(self) -> Iterator[tuple[StoredManifest, EvaluationRow]]:
        """Yield each revision with its outcome and its counts."""
        return ((stored, make_row(self.evaluation, stored)) for stored in self.revisions)


@click.command()
@click.argument("eval_id", metavar="ID")
@account_option()
@json_option()
def show(eval_id: str, account: str | None, *, as_json: bool) -> int:
    """Show where an evaluation is, how it ended, and what the archive holds of it.

    The command changes nothing. Exit code 1 means that neither the ledger nor the archive has the evaluation, or that
    its manifest is damaged.
    """
    known = parse_eval_id(eval_id)
    settings = load_account_settings(account)
    with contextlib.ExitStack() as stack:
        try:
            settings = stack.enter_context(find_redis(settings))
        except SettingsError as error:
            click.echo(f"docv-archive: only the archive was read: {error}", err=True)
        try:
            found = asyncio.run(_find(settings, Evaluation(known, settings.environment)))
        except IntegrityError as error:
            click.echo(f"docv-archive: {error}", err=True)
            return NOT_ALL
    if found.gap:
        click.echo(f"docv-archive: older revisions are not shown: {found.gap}", err=True)
    if as_json:
        click.echo(orjson.dumps(_as_json(found)))
    else:
        _print(found)
    return OK if found.status.state else NOT_ALL


async def _find(settings: Settings, evaluation: Evaluation) -> _Found:
    async with contextlib.AsyncExitStack() as stack:
        redis = None
        if settings.redis_url:
            redis = await stack.enter_async_context(open_redis(settings.need_redis_url()))
            await check_redis(redis)
        bucket = await stack.enter_async_context(open_read_only_bucket(settings, may_be_new=True))
        status = await look_up(redis, bucket, evaluation)
        revisions, gap = await _read_revisions(bucket, evaluation, status.manifest)
        return _Found(evaluation, status, revisions, gap)


async def _read_revisions(
    bucket: Bucket, evaluation: Evaluation, manifest: StoredManifest | None
) -> tuple[list[StoredManifest], str]:
    """Return the revisions of an evaluation, and why older ones are not among them, if so."""
    revisions: list[StoredManifest] = []
    try:
        while manifest:
            revisions.append(manifest)
            # An erasure leaves no revision before its own.
            has_previous = manifest.manifest.previous and manifest.manifest.revision > 1
            manifest = await read_previous(bucket, evaluation, manifest.manifest) if has_previous else None
    except NotExported as error:
        return revisions, str(error)
    return revisions, ""


def _as_json(found: _Found) -> dict[str, object]:
    return found.status.as_json() | {
        "revisions": [
            {
                "revision": stored.manifest.revision,
                "archived_at": row.archived_at,
                "retrieved_at": stored.manifest.retrieved_at,
                "event_at": stored.manifest.event_at,
                "outcome": row.outcome,
                "reason": row.reason,
                "documents": row.documents,
                "bytes": row.bytes,
                "disposed": row.disposed,
                "at_source": row.at_source,
                "response": stored.manifest.last_response.model_dump(),
                "request": stored.manifest.trigger.model_dump(),
            }
            for stored, row in found.rows()
        ],
        "disposals": [each.model_dump() for each in found.disposals],
    }


def _print(found: _Found) -> None:
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 200
    facts = Table(box=None, pad_edge=False, show_header=False)
    for name, value in found.status.as_json().items():
        shown = format_bytes(found.status.archived.bytes) if name == "bytes" else value
        text = ", ".join(shown) if isinstance(shown, tuple) else "" if shown is None else str(shown)
        facts.add_row(name.replace("_", " "), Text(text))
    console.print(facts)
    if found.disposals:
        console.print(_disposal_table(found.disposals))
    if found.revisions:
        console.print(_revision_table(found))


def _disposal_table(disposals: Sequence[DisposedRecord]) -> Table:
    table = Table(box=None, pad_edge=False)
    for title in ("disposed", "at", "rule", "clock", "started", "due", "certificate"):
        table.add_column(title, overflow="fold")
    for each in disposals:
        days = each.started.isoformat(), each.due.isoformat()
        certificate = each.receipt or "none: it was never stored"
        table.add_row(*map(Text, (each.kind, each.disposed_at, each.rule, each.clock, *days, certificate)))
    return table


def _revision_table(found: _Found) -> Table:
    table = Table(box=None, pad_edge=False)
    for title in ("revision", "archived at", "outcome", "reason", "documents", "at source", "response", "request"):
        table.add_column(title, justify="right" if title in {"revision", "documents"} else "left", overflow="fold")
    for stored, row in found.rows():
        facts = row.archived_at, row.outcome, row.reason, str(row.documents), row.at_source
        texts = _join(stored.manifest.last_response), _join(stored.manifest.trigger)
        table.add_row(str(stored.manifest.revision), *facts, *texts)
    return table


def _join(record: ArchiveRecord) -> Text:
    """Return the values of a record in one line, without characters that a terminal would interpret."""
    line = " ".join(str(value) for value in record.model_dump().values() if value is not None)
    return Text("".join(letter if letter.isprintable() else "\ufffd" for letter in line))
