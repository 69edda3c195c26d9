"""The command: ask the operator, erase each evaluation, say what came of it."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import assert_never

import click
import orjson

from scripts.archive_access.open_bucket import open_archive_bucket
from scripts.archive_access.s3_client import open_s3_archive
from scripts.console.exit_codes import NOT_ALL, OK
from scripts.console.operator_name import by_option, check_line, operator_name
from scripts.console.options import account_option, json_option, yes_option
from scripts.erase.erasure import Erased, ErasureRefused, ErasureResult, ErasureStores, WouldErase, erase_one
from scripts.erase.files import LocalFiles
from scripts.erase.receipt import ErasureRequest, Receipt
from scripts.erase.stock import ObjectVersions
from scripts.erase.traces import RedisRecords
from scripts.erase.versions import S3Versions
from scripts.local.processes import find_redis
from tasks.errors import IntegrityError, RetryableError, StorageError
from tasks.ledger.ledger import Ledger
from tasks.model.evaluation import Evaluation, parse_eval_id
from worker.clients.archive import open_archive
from worker.clients.errors import ServiceUnavailable
from worker.clients.redis import check_redis, open_redis
from worker.config.accounts import load_account_settings
from worker.config.settings import Settings, SettingsError

_NO_REDIS = "no Redis is named (DOCV_REDIS_URL), and none was used here: see that no worker is at work on the archive"


@click.command()
@click.argument("eval_ids", metavar="ID...", nargs=-1, required=True)
@click.option("--reason", required=True, help="Why; it stands in the receipt. No personal data.")
@by_option
@yes_option
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@click.option("--bypass-governance", is_flag=True, help="Remove also what a GOVERNANCE retention keeps.")
@account_option()
@json_option("Print one JSON object a line.")
def erase(
    eval_ids: Sequence[str],
    *,
    reason: str,
    by: str | None,
    yes: bool,
    dry_run: bool,
    bypass_governance: bool,
    account: str | None,
    as_json: bool,
) -> int:
    """Erase evaluations for good: a privacy request.

    Documents, manifests and all their versions go, and their traces in Redis; a receipt stays in the archive. They are
    not archived again, unless --even-if-erased says so. Cut off, the same command goes on where it was.
    """
    ids = list(dict.fromkeys(map(parse_eval_id, eval_ids)))
    asked = ErasureRequest(check_line(reason, "--reason"), operator_name(by), socket.gethostname(), bypass_governance)
    settings = load_account_settings(account)
    if not yes and not dry_run:
        click.confirm(
            f"{len(ids)} evaluations in {settings.archive_url} ({settings.environment}): documents, manifests and all "
            "their versions go for good. Go on?",
            abort=True,
            err=True,
        )
    with contextlib.ExitStack() as stack:
        try:
            settings = stack.enter_context(find_redis(settings))
        except SettingsError:
            click.echo(f"docv-archive: {_NO_REDIS}", err=True)
        endings = asyncio.run(_erase(ids, asked, settings, dry_run=dry_run, as_json=as_json))
    return NOT_ALL if any(isinstance(ending, ErasureRefused) for ending in endings) else OK


async def _erase(
    ids: Sequence[str], asked: ErasureRequest, settings: Settings, *, dry_run: bool, as_json: bool
) -> list[ErasureResult]:
    endings = []
    async with _open_stores(settings) as place:
        for eval_id in ids:
            ending = await _erase_one(Evaluation(eval_id, settings.environment), asked, place, dry_run=dry_run)
            if as_json:
                click.echo(orjson.dumps({"eval_id": eval_id, **_as_json(ending)}))
            else:
                click.echo(f"{eval_id}: {_sentence(ending)}")
            endings.append(ending)
    return endings


@contextlib.asynccontextmanager
async def _open_stores(settings: Settings) -> AsyncIterator[ErasureStores]:
    async with contextlib.AsyncExitStack() as stack:
        ledger = None
        if settings.redis_url:
            redis = await stack.enter_async_context(open_redis(settings.need_redis_url()))
            await check_redis(redis)
            ledger = Ledger(redis)
        bucket = await stack.enter_async_context(open_archive_bucket(settings))
        yield ErasureStores(bucket, _open_versions(settings), RedisRecords(ledger), settings.tags)


def _open_versions(settings: Settings) -> ObjectVersions:
    archive = open_s3_archive(settings)
    if archive:
        return S3Versions(archive)
    folder = open_archive(settings)
    if not isinstance(folder, Path):
        raise TypeError(folder)
    return LocalFiles(folder)


async def _erase_one(
    evaluation: Evaluation, asked: ErasureRequest, place: ErasureStores, *, dry_run: bool
) -> ErasureResult:
    try:
        return await erase_one(evaluation, asked, place, dry_run=dry_run)
    except IntegrityError as error:
        return ErasureRefused(str(error))
    except (StorageError, RetryableError) as error:
        raise ServiceUnavailable(
            f"{evaluation.eval_id}: {error}; the same command goes on where this one stopped"
        ) from None


def _sentence(ending: ErasureResult) -> str:
    match ending:
        case Erased(kept):
            return f"erased {_format_amount(kept.receipt)}; the receipt is {kept.key}"
        case WouldErase(receipt):
            return f"would erase {_format_amount(receipt)}"
        case ErasureRefused(why):
            return f"not erased: {why}"
    assert_never(ending)


def _as_json(ending: ErasureResult) -> dict[str, object]:
    match ending:
        case Erased(kept):
            return {"state": "erased", **_totals(kept.receipt), "receipt": kept.key, "why": None}
        case WouldErase(receipt):
            return {"state": "would_erase", **_totals(receipt), "receipt": None, "why": None}
        case ErasureRefused(why):
            return {"state": "refused", "objects": 0, "versions": 0, "bytes": 0, "receipt": None, "why": why}
    assert_never(ending)


def _format_amount(receipt: Receipt) -> str:
    return f"{receipt.objects} objects, {receipt.versions} versions, {receipt.size} bytes"


def _totals(receipt: Receipt) -> dict[str, int]:
    return {"objects": receipt.objects, "versions": receipt.versions, "bytes": receipt.size}
