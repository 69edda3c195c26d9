"""Everything of one evaluation: its manifests, what they claim, and what nothing claims.

Workers go on while we look. So whatever seems wrong is looked at again, from a new listing, until the manifest is the
same before and after it: everything that a manifest names was there before the manifest was.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from scripts.verify.check_object import check_object
from scripts.verify.context import VerifyContext
from scripts.verify.expected_objects import ExpectedObject, claims_of
from scripts.verify.layout import Group, Place, quarantine_place
from scripts.verify.objects_api import ListedObject
from scripts.verify.problems import Difference, Problem
from scripts.verify.revisions import Chain, read_chain
from tasks.model.evaluation import Evaluation

_LOOKS = 5


@dataclass(frozen=True, slots=True)
class _Look:
    manifest: str | None
    differences: list[Difference]


async def check_evaluation(means: VerifyContext, group: Group) -> list[Difference]:
    """Return what is not as it must be; where nothing was listed yet, a missing manifest is named, too."""
    asked = group.objects is None
    objects = await means.objects(group.place.prefix) if group.objects is None else group.objects
    means.tally.evaluations += 1
    means.tally.objects += len(objects)
    look = await _look(means, group.place, objects, asked=asked)
    for _ in range(_LOOKS):
        if not look.differences:
            break
        before, young = look.manifest, means.tally.young
        objects = await means.objects(group.place.prefix)
        look = await _look(means, group.place, objects, asked=asked)
        means.tally.young = young
        if look.manifest == before:
            break
    return look.differences


async def check_quarantine(means: VerifyContext, group: Group) -> list[Difference]:
    """Return the bundles in quarantine that no manifest of their evaluation claims."""
    evaluation = _evaluation(group.place)
    prefix = quarantine_place(evaluation.environment, evaluation.eval_id).prefix
    objects = await means.objects(prefix) if group.objects is None else group.objects
    means.tally.quarantined += len(objects)
    if not objects:
        return []
    listed = await means.objects(evaluation.manifest_key.removesuffix("manifest.json"))
    chain = await read_chain(means.bucket, evaluation, {stored.key: stored for stored in listed})
    claimed = {claim.key for claim in claims_of(evaluation, chain.records).bundles}
    unnamed = [stored for stored in objects if stored.key not in claimed]
    return means.orphans(evaluation.eval_id, unnamed, "no manifest says that this bundle is in quarantine")


async def _look(means: VerifyContext, place: Place, objects: Sequence[ListedObject], *, asked: bool) -> _Look:
    evaluation = _evaluation(place)
    there = {stored.key: stored for stored in objects}
    chain = await read_chain(means.bucket, evaluation, there)
    if chain.current is None:
        return _Look(None, chain.differences or _without_manifest(means, evaluation, objects, asked=asked))
    if not means.chosen.is_recent(chain.current.manifest.archived_at):
        return _Look(chain.current.sha256, [])
    return _Look(chain.current.sha256, await _differences(means, evaluation, chain, there))


async def _differences(
    means: VerifyContext, evaluation: Evaluation, chain: Chain, there: dict[str, ListedObject]
) -> list[Difference]:
    claims = claims_of(evaluation, chain.records)
    differences = [*chain.differences, *claims.differences]
    for key, claim in claims.documents.items():
        differences += await check_object(means, evaluation.eval_id, claim, there.get(key))
    if claims.bundles:
        differences += await _bundles(means, evaluation, claims.bundles)
    unnamed = [stored for key, stored in there.items() if key not in claims.documents and key not in chain.keys]
    return differences + means.orphans(evaluation.eval_id, unnamed, "no manifest of its evaluation names it")


async def _bundles(means: VerifyContext, evaluation: Evaluation, bundles: Sequence[ExpectedObject]) -> list[Difference]:
    place = quarantine_place(evaluation.environment, evaluation.eval_id)
    there = {stored.key: stored for stored in await means.objects(place.prefix)}
    found = [await check_object(means, evaluation.eval_id, claim, there.get(claim.key)) for claim in bundles]
    return [difference for some in found for difference in some]


def _without_manifest(
    means: VerifyContext, evaluation: Evaluation, objects: Sequence[ListedObject], *, asked: bool
) -> list[Difference]:
    orphans = means.orphans(evaluation.eval_id, objects, "its evaluation has no manifest")
    if not orphans and not asked:
        return []
    detail = f"{len(objects)} objects of its evaluation are there"
    missing = Difference(evaluation.eval_id, evaluation.manifest_key, Problem.MANIFEST_MISSING, detail)
    return [missing, *orphans]


def _evaluation(place: Place) -> Evaluation:
    return Evaluation(place.name, place.environment)
