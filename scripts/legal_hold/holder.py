"""Put one evaluation under a matter, or release it.

Holding names the matter in the manifest first, so that workers hold what they write from then on, and then sets S3's
legal hold on every version. Releasing also begins with the manifest: if it is interrupted, S3's legal hold stays, and
the same command ends it.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import PurePosixPath

from scripts.archive_access.s3_client import S3Archive
from scripts.archive_access.tombstone import write_tombstone
from scripts.legal_hold.s3_holds import hold_all
from tasks.bundle.documents import Kind
from tasks.errors import IntegrityError, ManifestChanged
from tasks.model.evaluation import Evaluation
from tasks.storage.bucket import Bucket
from tasks.storage.manifest import Manifest, read_manifest
from tasks.storage.revision import amend, complete_tags

_TRIES = 3
_ABSENT = (
    "it is not archived: check the ID, DOCV_ENVIRONMENT, DOCV_ARCHIVE_URL and its prefix; --even-if-absent puts it "
    "under the matter before it is archived"
)


class HoldRefused(Exception):
    """An evaluation cannot be put under a legal hold; the sentence says why."""


@dataclass(frozen=True, slots=True)
class HoldResult:
    """The result for one evaluation.

    Attributes:
        evaluation: the evaluation.
        why: a sentence that says why it was not held or released; None if it was.
        matters: the matters that it is under now.
        documents: number of documents that the archive holds.
        versions: number of object versions whose legal hold in S3 was set or ended.
        is_new: whether it was not under the matter before.
    """

    evaluation: Evaluation
    why: str | None = None
    matters: tuple[str, ...] = ()
    documents: int = 0
    versions: int = 0
    is_new: bool = False


@dataclass(frozen=True, slots=True)
class Holder:
    """Puts evaluations under a matter, and releases them.

    Attributes:
        bucket: the archive.
        s3: the same archive, if it is in S3; in a folder, only the manifest holds.
        matter: name of the matter.
        even_if_absent: whether to write a manifest for evaluations that are not archived.
        tags: the user's own tags.
        kinds: kinds of the documents to hold; empty for all.
    """

    bucket: Bucket
    s3: S3Archive | None
    matter: str
    even_if_absent: bool = False
    tags: Mapping[str, str] = field(default_factory=dict)
    kinds: tuple[str, ...] = ()

    async def look_up(self, evaluation: Evaluation) -> HoldResult:
        """Return whether an evaluation can be put under the matter, without changing anything.

        Raises:
            StorageError: the archive fails.
        """
        try:
            found = await read_manifest(self.bucket, evaluation)
            if found is None and not self.even_if_absent:
                return HoldResult(evaluation, _ABSENT)
            is_new = found is None or self._add(found.manifest) is not None
        except (HoldRefused, IntegrityError) as error:
            return HoldResult(evaluation, str(error))
        return HoldResult(evaluation, is_new=is_new)

    async def hold(self, evaluation: Evaluation) -> HoldResult:
        """Put an evaluation under the matter.

        Raises:
            ServiceUnavailable: S3 refuses or fails.
            StorageError: the archive fails.
        """
        try:
            manifest = await self._add_to_manifest(evaluation)
            _, versions = await self._apply_s3_holds(evaluation, manifest, otherwise=None)
        except (HoldRefused, IntegrityError, ManifestChanged) as error:
            return HoldResult(evaluation, str(error))
        return HoldResult(evaluation, None, manifest.matters, len(manifest.documents), versions)

    async def release(self, evaluation: Evaluation) -> HoldResult:
        """Release an evaluation from the matter; S3's legal hold ends only if it is under no other one.

        Raises:
            ServiceUnavailable: S3 refuses or fails.
            StorageError: the archive fails.
        """
        try:
            released = await amend(self.bucket, evaluation, self._remove, self.tags)
            manifest, versions = await self._apply_s3_holds(evaluation, released, otherwise="OFF")
        except (IntegrityError, ManifestChanged) as error:
            return HoldResult(evaluation, str(error))
        documents = len(manifest.documents) if manifest else 0
        return HoldResult(evaluation, None, manifest.matters if manifest else (), documents, versions)

    def _add(self, manifest: Manifest) -> Manifest | None:
        if manifest.erased:
            raise HoldRefused(f"it was erased, see {manifest.erased.receipt}: nothing of it is left to hold")
        matters, others = manifest.matters, _without(manifest.matter_kinds, self.matter)
        if self.matter not in matters:
            limits = {self.matter: self.kinds} if self.kinds else {}
            return manifest.model_copy(
                update={"matters": (*matters, self.matter), "matter_kinds": {**others, **limits}}
            )
        known = manifest.matter_kinds.get(self.matter)
        if known is None or (self.kinds and set(self.kinds) <= set(known)):
            return None
        limits = {self.matter: tuple(sorted({*known, *self.kinds}))} if self.kinds else {}
        return manifest.model_copy(update={"matter_kinds": {**others, **limits}})

    def _remove(self, manifest: Manifest) -> Manifest | None:
        if self.matter not in manifest.matters:
            return None
        others = tuple(each for each in manifest.matters if each != self.matter)
        limits = _without(manifest.matter_kinds, self.matter)
        return manifest.model_copy(update={"matters": others, "matter_kinds": limits})

    async def _add_to_manifest(self, evaluation: Evaluation) -> Manifest:
        """Add the matter to the manifest; return the manifest."""
        for _ in range(_TRIES):
            manifest = await amend(self.bucket, evaluation, self._add, self.tags)
            if manifest:
                # An interrupted command may have written the manifest without its tags.
                await complete_tags(self.bucket, evaluation, manifest, self.tags)
                return manifest
            if not self.even_if_absent:
                raise HoldRefused(_ABSENT)
            await write_tombstone(self.bucket, evaluation, "legal_hold", self.tags, self._add)
        raise ManifestChanged

    async def _apply_s3_holds(
        self, evaluation: Evaluation, manifest: Manifest | None, *, otherwise: str | None
    ) -> tuple[Manifest | None, int]:
        """Set or end S3's legal hold as the manifest says, even if another command changes the manifest meanwhile.

        Args:
            otherwise: the status of objects that no matter covers; None to leave them as they are.

        Returns:
            The manifest after that, and the number of versions.
        """
        if self.s3 is None:
            return manifest, 0
        for _ in range(_TRIES):
            before = manifest
            if not (manifest and manifest.matters):
                otherwise = "OFF"  # a release on another machine
            # After a release, the new revision has to be held, too, if there is another matter.
            versions = await asyncio.to_thread(
                hold_all, self.s3, evaluation, partial(_find_status, evaluation, manifest, otherwise)
            )
            found = await read_manifest(self.bucket, evaluation)
            manifest = found.manifest if found else None
            if _holds_of(manifest) == _holds_of(before):
                return manifest, versions
        raise ManifestChanged


def _find_status(evaluation: Evaluation, manifest: Manifest | None, otherwise: str | None, key: str) -> str | None:
    """Return the status of S3's legal hold on an object: everything but documents of other kinds is held."""
    folder = PurePosixPath(key).parent
    is_document = folder.parent.name == evaluation.eval_id and folder.name in set(Kind)
    is_held = manifest is not None and manifest.is_held(folder.name if is_document else None)
    return "ON" if is_held else otherwise


def _holds_of(manifest: Manifest | None) -> tuple[object, ...]:
    return (frozenset(manifest.matters), manifest.matter_kinds) if manifest else (frozenset(), {})


def _without(limits: Mapping[str, tuple[str, ...]], matter: str) -> dict[str, tuple[str, ...]]:
    return {name: kinds for name, kinds in limits.items() if name != matter}
