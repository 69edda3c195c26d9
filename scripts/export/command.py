"""Export evaluations into a folder, a ZIP or a bag, and print the result of each."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import orjson

from scripts.archive_access.open_bucket import open_read_only_bucket
from scripts.console.exit_codes import INTERRUPTED, NOT_ALL, OK
from scripts.console.formatting import format_bytes, format_count
from scripts.console.interrupts import interruptible
from scripts.console.options import account_option, json_option, kind_option
from scripts.console.summary import MEANINGS, REASONS
from scripts.export.bag import PAYLOAD, close_bag
from scripts.export.copying import Copier, DocumentSelection, Exported
from scripts.export.packing import pack
from scripts.export.staging import check_target_absent, put_in_place, staging_folder
from scripts.ids.arguments import ParsedIds
from scripts.ids.run_ids import read_ids_with_run, run_option
from tasks.model.evaluation import Evaluation
from tasks.storage.encrypted_bucket import EncryptedBucket
from tasks.storage.encryption import Keyring
from tasks.storage.manifest import Manifest
from worker.config.accounts import load_account_settings
from worker.config.settings import Settings

_DOCUMENTS_AT_ONCE = 8
_EVALUATIONS_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """What to export, and where.

    Attributes:
        target: path of the new folder or ZIP.
        packed: whether the target is a ZIP.
        bag: whether to make a BagIt bag.
        strict: whether to export nothing if something is missing.
        selection: what to export of each evaluation.
    """

    target: Path
    packed: bool
    bag: bool
    strict: bool
    selection: DocumentSelection

    @property
    def top(self) -> str:
        """Name of the one folder at the top of a ZIP."""
        return self.target.stem

    def folder_of(self, eval_id: str) -> str:
        """Return the final path of an evaluation's files, in a ZIP relative to its root."""
        inside = Path(PAYLOAD, eval_id) if self.bag else Path(eval_id)
        return str((Path(self.top) if self.packed else self.target) / inside)


@dataclass(slots=True)
class _ExportTotals:
    evaluations: int = 0
    documents: int = 0
    bytes: int = 0
    not_all: int = 0
    missing: list[str] = field(default_factory=list)

    def add(self, exported: Exported) -> None:
        self.evaluations += exported.manifest is not None
        self.documents += exported.documents
        self.bytes += exported.bytes
        self.not_all += not exported.is_complete
        self.missing += [f"{exported.eval_id}: {' '.join(problem.split())}" for problem in exported.problems]


@click.command()
@click.argument("sources", metavar="FILE|ID...", nargs=-1)
@click.option("--ids", "files", metavar="FILE", multiple=True, help="File with IDs, in the formats of `backfill`.")
@run_option
@click.option(
    "--to", "folder", type=click.Path(path_type=Path), help="Folder to create; a name that ends in .zip creates a ZIP."
)
@click.option("--zip", "archive", type=click.Path(path_type=Path), help="ZIP to create.")
@click.option("--bag", is_flag=True, help="Export a BagIt bag (RFC 8493).")
@kind_option("Export only documents of this kind.")
@click.option("--revision", type=click.IntRange(1), help="Export the documents of this revision.")
@click.option("--strict", is_flag=True, help="Export nothing if a document or evaluation is missing or was changed.")
@click.option("--current", is_flag=True, help="Leave out documents that RiskOS no longer had when last asked.")
@account_option()
@json_option("Print one JSON object for each evaluation.")
def export(  # noqa: PLR0913  # one for each option of the command line
    sources: tuple[str, ...],
    files: tuple[str, ...],
    run: str | None,
    folder: Path | None,
    archive: Path | None,
    account: str | None,
    *,
    bag: bool,
    strict: bool,
    as_json: bool,
    **selection: Any,
) -> int:
    """Copy documents out of the archive and check each one.

    Each evaluation gets a folder with all documents that the archive holds, its manifest.json and names.csv, which also
    lists documents that are missing, were changed or were disposed of. Nothing is ever overwritten. Needs neither Redis
    nor an API key.
    """
    target = archive or folder
    if target is None or (archive and folder):
        raise click.UsageError("give either --to DIR or --zip FILE.zip, and not both")
    if not sources + files and run is None:
        raise click.UsageError("no evaluations: give IDs, files with IDs, or --run")
    packed = bool(archive) or target.suffix.lower() == ".zip"
    options = ExportOptions(target, packed=packed, bag=bag, strict=strict, selection=DocumentSelection(**selection))
    check_target_absent(target)
    settings = load_account_settings(account)
    ids = read_ids_with_run(sources + files, run, settings)

    def make_it() -> int:
        try:
            sums = _export(settings, ids, options, as_json=as_json)
        except KeyboardInterrupt:
            click.echo("\nStopped. The partial export was removed.", err=True)
            return INTERRUPTED
        _print_totals(sums, options)
        return NOT_ALL if sums.not_all else OK

    return interruptible(make_it)


def _export(settings: Settings, ids: ParsedIds, wanted: ExportOptions, *, as_json: bool) -> _ExportTotals:
    with staging_folder(wanted.target) as staging:
        tree = staging / "tree"
        room = tree / PAYLOAD if wanted.bag else tree
        sums = asyncio.run(_copy_all(settings, ids.eval_ids, wanted, room, as_json=as_json))
        sums.not_all += len(ids.bad)
        if not sums.evaluations or (wanted.strict and sums.not_all):
            return sums
        if wanted.bag:
            counted = [("DocV-Environment", settings.environment), ("DocV-Evaluations", sums.evaluations)]
            close_bag(tree, [*counted, *(("DocV-Missing", each) for each in sums.missing)])
        made = staging / "packed" if wanted.packed else tree
        if wanted.packed:
            pack(tree, made, wanted.top)
        put_in_place(made, wanted.target)
    return sums


async def _copy_all(
    settings: Settings, eval_ids: Sequence[str], wanted: ExportOptions, room: Path, *, as_json: bool
) -> _ExportTotals:
    sums, some = _ExportTotals(), _EVALUATIONS_AT_ONCE
    async with open_read_only_bucket(settings) as archive:
        bucket = EncryptedBucket(archive, Keyring.of(settings.keyring_texts()))
        copier = Copier(bucket, room, wanted.selection, asyncio.Semaphore(_DOCUMENTS_AT_ONCE))
        for start in range(0, len(eval_ids), some):
            evaluations = [Evaluation(each, settings.environment) for each in eval_ids[start : start + some]]
            for exported in await _copy_some(copier, evaluations):
                _print_evaluation(exported, wanted, as_json=as_json)
                sums.add(exported)
    return sums


async def _copy_some(copier: Copier, evaluations: Sequence[Evaluation]) -> list[Exported]:
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(copier.copy(evaluation)) for evaluation in evaluations]
    except ExceptionGroup as failed:
        raise _first(failed) from None
    return [task.result() for task in tasks]


def _first(failed: ExceptionGroup) -> Exception:
    """Return the first error; if the disk is full, every error says so."""
    error = failed.exceptions[0]
    return _first(error) if isinstance(error, ExceptionGroup) else error


def _print_evaluation(exported: Exported, wanted: ExportOptions, *, as_json: bool) -> None:
    size = format_bytes(exported.bytes)
    result = exported.outcome if exported.is_complete or not exported.manifest else "incomplete"
    line = f"{exported.eval_id}  {result:<12}  {exported.documents:>4}  {size:>8}"
    click.echo(_json(exported, wanted) if as_json else line)
    for problem in exported.problems:
        click.echo(f"{exported.eval_id}: {problem}", err=True)
    if exported.manifest and not exported.manifest.documents:
        click.echo(f"{exported.eval_id}: there are no documents: {_why(exported.manifest)}", err=True)


def _json(exported: Exported, wanted: ExportOptions) -> bytes:
    return orjson.dumps(
        {
            "eval_id": exported.eval_id,
            "outcome": exported.outcome,
            "complete": exported.is_complete,
            "documents": exported.documents,
            "bytes": exported.bytes,
            "disposed": exported.disposed,
            "folder": wanted.folder_of(exported.eval_id) if exported.manifest else None,
            "problems": exported.problems,
        }
    )


def _why(manifest: Manifest) -> str:
    if manifest.erased:
        return f"it was erased, see {manifest.erased.receipt}"
    if manifest.disposed:
        receipts = sorted({each.receipt for each in manifest.disposed if each.receipt})
        return f"they were disposed of, see {', '.join(receipts) or 'the manifest'}"
    return REASONS[manifest.no_documents.reason] if manifest.no_documents else MEANINGS[manifest.outcome]


def _print_totals(sums: _ExportTotals, wanted: ExportOptions) -> None:
    if not sums.evaluations:
        click.echo("there was nothing to export", err=True)
        return
    if wanted.strict and sums.not_all:
        click.echo(f"{sums.not_all} missing or changed, so nothing was exported (--strict)", err=True)
        return
    counts = f"{format_count(sums.evaluations, 'evaluation')}, {format_count(sums.documents, 'document')}"
    what = f"{counts}, {format_bytes(sums.bytes)}"
    click.echo(f"{wanted.target}: {what}" + (f"; {sums.not_all} incomplete" if sums.not_all else ""), err=True)
