"""Read the manifests of one evaluation: the current one and the chain of former ones."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from scripts.verify.problems import Difference, Problem
from scripts.verify.record import ManifestRecord, read_record
from tasks.model.evaluation import Evaluation
from tasks.storage.bucket import Bucket, ListedObject

_REVISION = re.compile(r"revisions/(0|[1-9][0-9]{0,8})\.json")


@dataclass(slots=True)
class RevisionChain:
    """The manifests of an evaluation.

    Attributes:
        current: the current manifest, or None if it is missing or cannot be read.
        former: readable former manifests, the newest first.
        keys: keys of all manifests of this evaluation, including damaged ones.
        differences: differences in the manifests.
    """

    current: ManifestRecord | None = None
    former: list[ManifestRecord] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)
    differences: list[Difference] = field(default_factory=list)

    @property
    def records(self) -> list[ManifestRecord]:
        """All readable manifests, the newest first."""
        return [self.current, *self.former] if self.current else []


async def read_chain(bucket: Bucket, evaluation: Evaluation, there: Mapping[str, ListedObject]) -> RevisionChain:
    """Return the manifests of an evaluation.

    Args:
        there: the listed objects of the evaluation, by key.
    """
    chain, key = RevisionChain(), evaluation.manifest_key
    read = await read_record(bucket, evaluation, key, there.get(key))
    match read:
        case ManifestRecord():
            chain.current = read
            chain.keys.add(key)
            await _ChainReader(bucket, evaluation, there, chain).follow(read)
        case Difference():
            chain.differences.append(read)
    return chain


@dataclass(slots=True)
class _ChainReader:
    bucket: Bucket
    evaluation: Evaluation
    there: Mapping[str, ListedObject]
    chain: RevisionChain

    async def follow(self, current: ManifestRecord) -> None:
        """Read every former manifest, and compare it with its successor."""
        below = len(self.evaluation.manifest_key) - len("manifest.json")
        found = (_REVISION.fullmatch(key[below:]) for key in self.there)
        numbers = sorted((int(each[1]) for each in found if each), reverse=True)
        self._check_first(current)
        self._report_missing(numbers, current)
        successor: ManifestRecord | None = current
        for number in (each for each in numbers if each < current.manifest.revision):
            successor = await self._link(number, successor)
        if current.manifest.revision in numbers:
            await self._check_copy(current)

    def _check_first(self, record: ManifestRecord) -> None:
        """Check that only the first manifest has no predecessor; after an erasure, the first one follows the marker."""
        manifest = record.manifest
        first = manifest.revision == 1 and self.evaluation.revision_key(0) not in self.there
        if not manifest.erased and first != (manifest.previous is None):
            self._add_difference(
                record.key, Problem.REVISION_DIFFERS, "its number and its predecessor's hash contradict each other"
            )

    def _report_missing(self, numbers: list[int], current: ManifestRecord) -> None:
        """Record a difference for the newest missing manifest, with the number of missing ones."""
        former = {number for number in numbers if number < current.manifest.revision}
        missing = current.manifest.revision - 1 - len(former - {0})
        if missing and not current.manifest.erased:
            number = current.manifest.revision - 1
            while number in former:
                number -= 1
            more = f"; {missing} are missing" if missing > 1 else ""
            self._add_difference(
                self.evaluation.revision_key(number), Problem.REVISION_MISSING, f"its successor names it{more}"
            )

    async def _link(self, number: int, successor: ManifestRecord | None) -> ManifestRecord | None:
        key = self.evaluation.revision_key(number)
        self.chain.keys.add(key)
        read = await read_record(self.bucket, self.evaluation, key, self.there[key])
        match read:
            case None:
                self._add_difference(key, Problem.REVISION_MISSING, "it was listed, but no longer exists")
                return None
            case Difference():
                self.chain.differences.append(read)
                return None
        self._check_first(read)
        # After an erasure revisions begin again, and the predecessor of the first is the marker, whatever its number.
        marker = number == 0 and read.manifest.erased
        if read.manifest.revision != number and not marker:
            self._add_difference(key, Problem.REVISION_DIFFERS, f"its revision number is {read.manifest.revision}")
        # A worker that died before it replaced the marker leaves a copy of it there.
        is_copy = marker and successor is not None and read.sha256 == successor.sha256
        follows = successor and successor.manifest.revision == number + 1 and not is_copy
        if successor and follows and successor.manifest.previous != read.sha256:
            self._add_difference(key, Problem.REVISION_DIFFERS, "its hash differs from the one in its successor")
        self.chain.former.append(read)
        return read

    async def _check_copy(self, current: ManifestRecord) -> None:
        """Check the copy of the current manifest that a worker leaves if it dies just before it replaces it."""
        key = self.evaluation.revision_key(current.manifest.revision)
        self.chain.keys.add(key)
        read = await read_record(self.bucket, self.evaluation, key, self.there[key])
        if not isinstance(read, ManifestRecord) or read.sha256 != current.sha256:
            self._add_difference(
                key, Problem.REVISION_DIFFERS, "it has the number of the current manifest, but differs from it"
            )

    def _add_difference(self, key: str, problem: Problem, detail: str) -> None:
        self.chain.differences.append(Difference(self.evaluation.eval_id, key, problem, detail))
