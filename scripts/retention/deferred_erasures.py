"""Carry out deferred requests for erasure whose duty to keep documents has ended."""

import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import click

from scripts.console.formatting import format_count
from scripts.erase.duties import RetentionDuties, Waiting, find_deferred
from scripts.erase.erasure import BegunErasure, Erased, ErasureStores, WouldErase
from scripts.erase.presence import find_in_lists
from scripts.erase.receipt import ErasureRequest, describe_damage
from scripts.erase.steps import EVALUATION_ERRORS, begin_request, finish_request
from scripts.erase.versions import open_versions
from scripts.retention.certificate import Operator
from scripts.retention.redis_records import open_redis_records
from tasks.errors import IntegrityError
from tasks.model.evaluation import Evaluation
from tasks.storage.bucket import Bucket
from worker.config.settings import Settings


@dataclass(slots=True)
class DeferredErasures:
    """The result for deferred requests.

    Attributes:
        erased: requests that were carried out, or that would be in a dry run.
        waiting: requests that a duty still blocks.
        held_back: requests that a legal hold or a lock of S3 blocks.
        failed: evaluations and receipts that could not be processed.
    """

    erased: int = 0
    waiting: int = 0
    held_back: int = 0
    failed: set[str] = field(default_factory=set)

    def as_json(self) -> dict[str, int]:
        """Return the counts as a JSON object."""
        return {
            "erased": self.erased,
            "waiting": self.waiting,
            "held_back": self.held_back,
            "failed": len(self.failed),
        }

    def sentences(self, *, dry_run: bool) -> Iterator[str]:
        """Yield the counts in sentences."""
        if self.erased:
            verb = "would be carried out" if dry_run else "carried out"
            yield f"{format_count(self.erased, 'deferred request')} for erasure {verb}"
        if self.waiting:
            yield f"{format_count(self.waiting, 'request')} for erasure wait for the end of a duty to keep"

    def fail(self, name: str, why: object) -> None:
        """Count and print what could not be processed."""
        self.failed.add(name)
        click.echo(f"docv-archive: {name}: {why}", err=True)


async def erase_deferred(
    bucket: Bucket,
    settings: Settings,
    duties: RetentionDuties,
    environments: Sequence[str],
    operator: Operator,
    wait: Callable[[], Awaitable[None]],
    *,
    dry_run: bool,
) -> DeferredErasures:
    """Carry out the deferred requests in these environments that are allowed.

    Raises:
        ServiceUnavailable: S3, the folder, or Redis refuses or fails.
        StorageError: the bucket failed.
    """
    result, allowed = DeferredErasures(), defaultdict[tuple[str, ...], list[Evaluation]](list)

    def report_damage(evaluation: Evaluation, key: str) -> None:
        result.fail(evaluation.eval_id, describe_damage(key))

    for evaluation, kinds in await find_deferred(bucket, environments, report_damage):
        try:
            if await duties.find(bucket, evaluation, kinds):
                result.waiting += 1
            else:
                allowed[kinds].append(evaluation)
        except IntegrityError as error:
            result.fail(evaluation.eval_id, error)
    whole = set(allowed[()])
    request = ErasureRequest("", operator.by, operator.host, when_allowed=True)
    for kinds in sorted(allowed):
        # An erasure of the whole evaluation completes those of its kinds, too.
        evaluations = [each for each in allowed[kinds] if not kinds or each not in whole]
        if evaluations:
            async with _open_stores(bucket, settings, duties, evaluations) as stores:
                await carry_out(evaluations, replace(request, kinds=kinds), stores, wait, result, dry_run=dry_run)
    return result


async def carry_out(
    evaluations: Sequence[Evaluation],
    request: ErasureRequest,
    stores: ErasureStores,
    wait: Callable[[], Awaitable[None]],
    result: DeferredErasures,
    *,
    dry_run: bool = False,
) -> None:
    """Erase evaluations with deferred requests; if that was interrupted, the same call completes it."""
    begun = []
    for evaluation in evaluations:
        try:
            beginning = await begin_request(evaluation, request, stores, dry_run=dry_run)
        except EVALUATION_ERRORS as error:
            result.fail(evaluation.eval_id, error)
            continue
        match beginning:
            case BegunErasure():
                begun.append(beginning)
            case WouldErase():
                result.erased += 1
            case Waiting():
                result.waiting += 1
            case _:
                result.held_back += 1
                click.echo(f"docv-archive: {evaluation.eval_id}: not erased: {beginning.why}", err=True)
    if not begun:
        return
    await wait()
    whole = [each.evaluation.eval_id for each in begun if not request.kinds]
    mentions = await stores.redis_records.remove_mentions(whole)
    for each in begun:
        eval_id = each.evaluation.eval_id
        try:
            done = await finish_request(each, stores, mentions.get(eval_id, ()))
        except EVALUATION_ERRORS as error:
            result.fail(eval_id, error)
            continue
        if isinstance(done, Erased):
            result.erased += 1
        else:
            result.fail(eval_id, done.why)


@contextlib.asynccontextmanager
async def _open_stores(
    bucket: Bucket, settings: Settings, duties: RetentionDuties, evaluations: Sequence[Evaluation]
) -> AsyncIterator[ErasureStores]:
    async with open_redis_records(settings) as records:
        versions = open_versions(settings)
        ids = [each.eval_id for each in evaluations]
        lists = await find_in_lists(
            bucket, versions, ids, lambda key: click.echo(f"docv-archive: {key} is damaged", err=True)
        )
        yield ErasureStores(bucket, versions, records, settings.tags, lists, duties)
