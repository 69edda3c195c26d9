"""The command: ask the operator, erase each evaluation, say what came of it."""

import asyncio
import contextlib
import getpass
import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import assert_never

import click
import orjson

from scripts.archive_access.open_bucket import opened_bucket
from scripts.archive_access.s3_client import s3_archive
from scripts.archive_access.selected_account import settings_of
from scripts.console.exit_codes import NOT_ALL, OK
from scripts.erase.erasure import Ending, Erased, Place, Refused, WouldErase, erase_one
from scripts.erase.files import Files
from scripts.erase.receipt import Asked, Receipt
from scripts.erase.stock import Stock
from scripts.erase.traces import Traces
from scripts.erase.versions import Versions
from scripts.local.processes import known_redis
from tasks.errors import IntegrityError, RetryableError, StorageError
from tasks.ledger.ledger import Ledger
from tasks.model.evaluation import Evaluation, parse_eval_id
from worker.clients.archive import open_archive
from worker.clients.errors import ServiceUnavailable
from worker.clients.redis import check_redis, open_redis
from worker.config.settings import Settings, SettingsError

_REASON = 500
_NO_REDIS = "no Redis is named (DOCV_REDIS_URL), and none was used here: see that no worker is at work on the archive"


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
    """Erase the evaluations; return the exit code."""
    ids = list(dict.fromkeys(map(parse_eval_id, eval_ids)))
    who = _bounded(by or getpass.getuser(), "--by")
    asked = Asked(_bounded(reason, "--reason"), who, socket.gethostname(), bypass_governance)
    settings = settings_of(account)
    if not yes and not dry_run:
        _ask(len(ids), settings)
    with _ledger_settings(settings) as here:
        endings = asyncio.run(_erase(ids, asked, here, dry_run=dry_run, as_json=as_json))
    return NOT_ALL if any(isinstance(ending, Refused) for ending in endings) else OK


def _bounded(text: str, option: str) -> str:
    if not 1 <= len(text.strip()) <= _REASON or not text.isprintable():
        raise click.BadParameter(f"expected is one line of 1 to {_REASON} characters", param_hint=option)
    return text.strip()


def _ask(count: int, settings: Settings) -> None:
    click.confirm(
        f"{count} evaluations in {settings.archive_url} ({settings.environment}): documents, manifests and all their "
        "versions go for good. Go on?",
        abort=True,
        err=True,
    )


@contextlib.contextmanager
def _ledger_settings(settings: Settings) -> Iterator[Settings]:
    """Yield settings with the Redis that may know the evaluations, where there is any."""
    with contextlib.ExitStack() as stack:
        try:
            here = stack.enter_context(known_redis(settings))
        except SettingsError:
            click.echo(f"docv-archive: {_NO_REDIS}", err=True)
            here = settings
        yield here


async def _erase(ids: Sequence[str], asked: Asked, settings: Settings, *, dry_run: bool, as_json: bool) -> list[Ending]:
    endings = []
    async with _opened(settings) as place:
        for eval_id in ids:
            ending = await _one(Evaluation(eval_id, settings.environment), asked, place, dry_run=dry_run)
            _say(eval_id, ending, as_json=as_json)
            endings.append(ending)
    return endings


@contextlib.asynccontextmanager
async def _opened(settings: Settings) -> AsyncIterator[Place]:
    async with contextlib.AsyncExitStack() as stack:
        ledger = None
        if settings.redis_url:
            redis = await stack.enter_async_context(open_redis(settings.need_redis_url()))
            await check_redis(redis)
            ledger = Ledger(redis)
        bucket = await stack.enter_async_context(opened_bucket(settings))
        yield Place(bucket, _stock(settings), Traces(ledger))


def _stock(settings: Settings) -> Stock:
    archive = s3_archive(settings)
    if archive:
        return Versions(archive)
    folder = open_archive(settings)
    if not isinstance(folder, Path):
        raise TypeError(folder)
    return Files(folder)


async def _one(evaluation: Evaluation, asked: Asked, place: Place, *, dry_run: bool) -> Ending:
    try:
        return await erase_one(evaluation, asked, place, dry_run=dry_run)
    except IntegrityError as error:
        return Refused(str(error))
    except (StorageError, RetryableError) as error:
        raise ServiceUnavailable(
            f"{evaluation.eval_id}: {error}; the same command goes on where this one stopped"
        ) from None


def _say(eval_id: str, ending: Ending, *, as_json: bool) -> None:
    if as_json:
        click.echo(orjson.dumps({"eval_id": eval_id, **_facts(ending)}))
    else:
        click.echo(f"{eval_id}: {_sentence(ending)}")


def _sentence(ending: Ending) -> str:
    match ending:
        case Erased(kept):
            return f"erased {_amount(kept.receipt)}; the receipt is {kept.key}"
        case WouldErase(receipt):
            return f"would erase {_amount(receipt)}"
        case Refused(why):
            return f"not erased: {why}"
    assert_never(ending)


def _facts(ending: Ending) -> dict[str, object]:
    match ending:
        case Erased(kept):
            return {"state": "erased", **_figures(kept.receipt), "receipt": kept.key, "why": None}
        case WouldErase(receipt):
            return {"state": "would_erase", **_figures(receipt), "receipt": None, "why": None}
        case Refused(why):
            return {"state": "refused", "objects": 0, "versions": 0, "bytes": 0, "receipt": None, "why": why}
    assert_never(ending)


def _amount(receipt: Receipt) -> str:
    return f"{receipt.objects} objects, {receipt.versions} versions, {receipt.size} bytes"


def _figures(receipt: Receipt) -> dict[str, int]:
    return {"objects": receipt.objects, "versions": receipt.versions, "bytes": receipt.size}
