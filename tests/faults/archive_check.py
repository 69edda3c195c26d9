"""Compare an archive under a retention schedule with the model of it: manifests, objects, `verify` and certificates."""

import datetime as dt
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from functools import partial
from typing import Any

import orjson

from scripts.verify.command import find_differences
from scripts.verify.context import VerifyContext
from scripts.verify.layout import group_objects
from scripts.verify.open_lister import open_lister
from scripts.verify.ordered_gather import ordered_gather
from scripts.verify.problems import Difference, Problem
from tasks.model.evaluation import Evaluation
from tasks.storage.bucket import Bucket
from tasks.storage.manifest import Manifest, read_manifest
from tasks.storage.manifest_records import DisposedRecord
from tests.faults.retention_model import Document, EvaluationModel, ModelDisposal
from worker.config.settings import Settings

_Disposals = defaultdict[str, list[tuple[str, ModelDisposal]]]
"""Evaluation and disposal, by the key of the certificate."""


def evaluation_of(model: EvaluationModel) -> Evaluation:
    """Return the evaluation that a model describes."""
    return Evaluation(model.eval_id, model.environment, model.account)


async def read_existing(bucket: Bucket, evaluation: Evaluation) -> Manifest:
    """Return the manifest of an evaluation; fail if there is none."""
    found = await read_manifest(bucket, evaluation)
    assert found, "it has no manifest"
    return found.manifest


class ArchiveCheck:
    """Compares an archive with the models of its evaluations.

    Args:
        settings: name the archive.
        bucket: the archive.
        models: the model of each evaluation.
        find_documents: returns kind and hash of each object of an evaluation, even if its manifest does not list it.
        lingering: evaluations of which a killed application may have left objects that are disposed of.
        orphaned: evaluations of which an interrupted attempt may have left objects without a manifest.
    """

    def __init__(
        self,
        settings: Settings,
        bucket: Bucket,
        models: Mapping[str, EvaluationModel],
        find_documents: Callable[[Evaluation], set[Document]],
        lingering: AbstractSet[str],
        orphaned: AbstractSet[str],
    ) -> None:
        self._settings, self._bucket, self._models = settings, bucket, models
        self._find_documents, self._lingering, self._orphaned = find_documents, lingering, orphaned

    async def compare(self, model: EvaluationModel) -> None:
        """Compare the manifest and the objects of an evaluation with the model."""
        found = await read_manifest(self._bucket, evaluation_of(model))
        assert (found is not None) == model.is_known
        objects = self._find_documents(evaluation_of(model))
        if found is None:
            assert objects == set() or model.eval_id in self._orphaned
            return
        manifest = found.manifest
        assert (manifest.erased is not None) == model.is_erased
        assert set(manifest.matters) == model.matters
        held = {(each.kind, each.sha256) for each in manifest.documents}
        assert held == model.held.keys(), f"held: {held}, expected: {model.held}; {model.decisions()}"
        assert Counter(_disposal_of(each) for each in manifest.disposed if each.receipt) == Counter(model.disposals)
        assert {(each.kind, each.sha256) for each in manifest.disposed if not each.receipt} == model.refused
        leftovers = objects - model.held.keys()
        assert model.held.keys() <= objects
        is_allowed = model.eval_id in self._lingering | self._orphaned
        assert leftovers == set() or is_allowed, f"{leftovers} are still there"

    async def compare_all(self) -> None:
        """Compare every evaluation, verify the archive, and check all certificates."""
        for model in self._models.values():
            with model.with_history():
                await self.compare(model)
        differences = await self._verify()
        for each in differences:
            if each.problem in {Problem.ORPHAN, Problem.MANIFEST_MISSING} and each.eval_id in self._orphaned:
                continue
            with self._models[each.eval_id].with_history():
                assert each.problem is Problem.DISPOSED_STILL_THERE, each
                assert each.eval_id in self._lingering, each
        await self._check_certificates()

    async def _verify(self) -> list[Difference]:
        async with open_lister(self._settings) as lister:
            ctx = VerifyContext(self._bucket, lister, young=float("inf"))
            groups = group_objects(lister.walk(""))
            found = ordered_gather(64, partial(find_differences, ctx), groups)
            return [each async for some in found for each in some]

    async def _check_certificates(self) -> None:
        """Check that certificates list each disposed document once, with correct counts."""
        listed, interrupted = await self._find_disposals()
        for key, certificate in (await self._read_certificates()).items():
            documents = Counter((each["kind"], each["sha256"], each["size"]) for each in certificate["documents"])
            own = listed.pop(key, [])
            others = documents - Counter(_document(each) for _, each in own)
            for eval_id, each in interrupted[key]:
                if others[_document(each)]:
                    others[_document(each)] -= 1
                    own.append((eval_id, each))
            assert documents == Counter(_document(each) for _, each in own), f"{key} lists something else"
            evaluations = {eval_id for eval_id, _ in own}
            with self._models[min(evaluations)].with_history():
                assert certificate["evaluations"] == len(evaluations), key
                assert certificate["bytes"] == sum(each.size for _, each in own), key
                assert {each.rule for _, each in own} == {certificate["rule"]}, key
                assert _day(certificate["disposed_from"]) == min(each.day for _, each in own), key
                assert _day(certificate["disposed_until"]) == max(each.day for _, each in own), key
        assert not listed, f"disposed of without a certificate: {dict(listed)}"

    async def _find_disposals(self) -> tuple[_Disposals, _Disposals]:
        """Return the disposals that certificates have to list, and those that they may list, by key.

        The latter belong to evaluations that a killed application has started with.
        """
        listed, interrupted = _Disposals(list), _Disposals(list)
        for model in self._models.values():
            found = interrupted if model.eval_id in self._lingering else listed
            for each in (await read_existing(self._bucket, evaluation_of(model))).disposed if model.disposals else ():
                if each.receipt:
                    found[each.receipt].append((model.eval_id, _disposal_of(each)))
        return listed, interrupted

    async def _read_certificates(self) -> dict[str, Any]:
        keys = [each.key async for some in self._bucket.list_objects("receipts/disposals/") for each in some]
        found = {key: await self._bucket.read(key) for key in keys}
        return {key: orjson.loads(each.data) for key, each in found.items() if each}


def _disposal_of(record: DisposedRecord) -> ModelDisposal:
    return ModelDisposal(record.kind, record.sha256, record.size, record.rule, record.due, _day(record.disposed_at))


def _document(disposal: ModelDisposal) -> tuple[str, str, int]:
    return disposal.kind, disposal.sha256, disposal.size


def _day(moment: str) -> dt.date:
    return dt.datetime.fromisoformat(moment).date()
