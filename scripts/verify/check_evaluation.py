"""Check one evaluation: its manifests, the objects they claim, and objects that nothing claims.

Workers keep running meanwhile. So apparent differences are checked again from a new listing, until the manifest is the
same before and after it: every object that a manifest names is written before the manifest.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime

from scripts.verify.check_object import check_object
from scripts.verify.context import VerifyContext
from scripts.verify.expected_objects import expected_objects
from scripts.verify.layout import ArchivePlace, ObjectGroup, quarantine_place
from scripts.verify.problems import Difference, Problem
from scripts.verify.revisions import RevisionChain, read_chain
from tasks.model.evaluation import Evaluation
from tasks.storage.bucket import ListedObject
from tasks.storage.manifest_records import ERASURE, DisposedRecord

_ATTEMPTS = 5


async def check_evaluation(ctx: VerifyContext, group: ObjectGroup) -> list[Difference]:
    """Return the differences; an evaluation that was requested by its ID, not listed, must have a manifest."""
    asked = group.objects is None
    objects = await ctx.objects(group.place.prefix) if group.objects is None else group.objects
    ctx.progress.evaluations += 1
    ctx.progress.objects += len(objects)
    manifest, differences = await _check(ctx, group.place, objects, asked=asked)
    for _ in range(_ATTEMPTS):
        if not differences:
            break
        before, young = manifest, ctx.progress.young
        objects = await ctx.objects(group.place.prefix)
        manifest, differences = await _check(ctx, group.place, objects, asked=asked)
        ctx.progress.young = young
        if manifest == before:
            break
    return differences


async def check_quarantine(ctx: VerifyContext, group: ObjectGroup) -> list[Difference]:
    """Return the bundles in quarantine that no manifest of their evaluation claims."""
    evaluation = Evaluation(group.place.name, group.place.environment)
    objects = await ctx.objects(group.place.prefix) if group.objects is None else group.objects
    ctx.progress.quarantined += len(objects)
    if not objects:
        return []
    listed = await ctx.objects(evaluation.manifest_key.removesuffix("manifest.json"))
    chain = await read_chain(ctx.bucket, evaluation, {stored.key: stored for stored in listed})
    claimed = {claim.key for claim in expected_objects(evaluation, chain.records).bundles}
    unnamed = [stored for stored in objects if stored.key not in claimed]
    return ctx.orphans(evaluation.eval_id, unnamed, "no manifest lists this bundle in quarantine")


async def _check(
    ctx: VerifyContext, place: ArchivePlace, objects: Sequence[ListedObject], *, asked: bool
) -> tuple[str | None, list[Difference]]:
    """Return the hash of the manifest, or None if there is no valid one, and the differences."""
    evaluation = Evaluation(place.name, place.environment)
    there = {stored.key: stored for stored in objects}
    chain = await read_chain(ctx.bucket, evaluation, there)
    if chain.current is None:
        return None, chain.differences or _check_without_manifest(ctx, evaluation, objects, asked=asked)
    if not ctx.selection.is_recent(chain.current.manifest.archived_at):
        return chain.current.sha256, []
    return chain.current.sha256, await _find_differences(ctx, evaluation, chain, there)


async def _find_differences(
    ctx: VerifyContext, evaluation: Evaluation, chain: RevisionChain, there: dict[str, ListedObject]
) -> list[Difference]:
    claims = expected_objects(evaluation, chain.records)
    differences = [*chain.differences, *claims.differences]
    for key, claim in claims.documents.items():
        differences += await check_object(ctx, evaluation.eval_id, claim, there.get(key))
    if claims.bundles:
        place = quarantine_place(evaluation.environment, evaluation.eval_id)
        quarantined = {stored.key: stored for stored in await ctx.objects(place.prefix)}
        for claim in claims.bundles:
            differences += await check_object(ctx, evaluation.eval_id, claim, quarantined.get(claim.key))
    unnamed = [stored for key, stored in there.items() if key not in claims.documents and key not in chain.keys]
    gone = {document.sha256: document for document in claims.disposed.values()}
    leftovers = [(stored, gone[name]) for stored in unnamed if (name := _hash_in(stored.key)) in gone]
    orphans = [stored for stored in unnamed if _hash_in(stored.key) not in gone]
    differences += _find_disposed(ctx, evaluation, leftovers)
    return differences + ctx.orphans(evaluation.eval_id, orphans, "no manifest of its evaluation lists it")


def _find_disposed(
    ctx: VerifyContext, evaluation: Evaluation, leftovers: Iterable[tuple[ListedObject, DisposedRecord]]
) -> list[Difference]:
    """Return the objects with bytes that were disposed of, of any kind, if the disposal has had enough time."""
    found = list[tuple[float, Difference]]()
    for stored, document in leftovers:
        since = max(stored.modified, datetime.fromisoformat(document.disposed_at).timestamp())
        detail = f"it was disposed of on {document.disposed_at[:10]}: run the same `docv-archive retention apply` again"
        if document.rule == ERASURE:
            detail = (
                f"it was erased on {document.disposed_at[:10]}: run the same `docv-archive erase` with --kind again"
            )
        found.append((since, Difference(evaluation.eval_id, stored.key, Problem.DISPOSED_STILL_THERE, detail)))
    return ctx.drop_young(found)


def _hash_in(key: str) -> str:
    """Return the hash in the key of a document."""
    return key.rpartition("/")[2].partition(".")[0]


def _check_without_manifest(
    ctx: VerifyContext, evaluation: Evaluation, objects: Sequence[ListedObject], *, asked: bool
) -> list[Difference]:
    orphans = ctx.orphans(evaluation.eval_id, objects, "its evaluation has no manifest")
    if not orphans and not asked:
        return []
    detail = f"objects of this evaluation in the archive: {len(objects):,}"
    missing = Difference(evaluation.eval_id, evaluation.manifest_key, Problem.MANIFEST_MISSING, detail)
    return [missing, *orphans]
