"""Dispose of the documents of one evaluation: list them in its manifest, then remove all versions of their objects.

A worker may have read the manifest before, and store the same bytes again. So the objects are removed a second time
when no such worker can be writing any more: it has no lease, and its last upload has ended. Only then may a certificate
list them.
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime

from scripts.erase.stock import ObjectVersion, ObjectVersions, VersionLock
from scripts.retention.assessment import AssessedDocument, DocumentState, assess, state_of_lock
from scripts.retention.certificate import CertificateKeys, leftover_key
from scripts.retention.plan_file import PlannedEvaluation
from tasks.model.evaluation import Evaluation
from tasks.retention.event import EventRecord, read_events
from tasks.retention.schedule import Schedule
from tasks.storage.bucket import Bucket
from tasks.storage.manifest import Manifest, format_utc, read_manifest
from tasks.storage.manifest_records import DisposedRecord, DocumentRecord
from tasks.storage.revision import amend

_SWEEPS = 3
_BUSY = (
    "a worker that has it may have read its manifest before the disposal, so no certificate lists it yet: the next "
    "application of the schedule removes what the worker stores"
)
IsIdle = Callable[[Evaluation], Awaitable[bool]]
"""Returns whether no worker has an evaluation."""


class StillWritten(Exception):  # named for what happened
    """Something writes, or may write, a document that the archive has disposed of."""


@dataclass(frozen=True, slots=True)
class DisposalStores:
    """The archive, as disposals use it.

    Attributes:
        bucket: the archive.
        versions: the same archive, with all versions of its objects.
        tags: the user's own tags, for manifests.
    """

    bucket: Bucket
    versions: ObjectVersions
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Disposal:
    """The result for the documents of one evaluation that a plan names.

    Attributes:
        due: documents that are due, and that nothing holds back: each is listed as disposed now, except in a dry run.
        held_back: the states of the other ones that the archive holds.
        is_listed: whether the manifest lists disposals of this plan, so that its objects have to be swept again.
    """

    due: Sequence[AssessedDocument] = ()
    held_back: Counter[DocumentState] = field(default_factory=Counter)
    is_listed: bool = False


@dataclass(frozen=True, slots=True)
class SweptEvaluation:
    """An evaluation after the second sweep.

    Attributes:
        disposals: documents whose versions are all removed, by the key of the certificate that is to list them.
        kept: documents that are still stored, under a lock or a legal hold that was set meanwhile.
    """

    disposals: Mapping[str, Sequence[DisposedRecord]] = field(default_factory=dict)
    kept: int = 0


@dataclass(frozen=True, slots=True)
class Disposer:
    """Disposes of documents that a plan names and that are still due.

    Attributes:
        stores: the archive.
        schedule: the retention schedule.
        keys: keys of the certificates.
        today: the day on which documents have to be due.
        clock: returns the current time.
    """

    stores: DisposalStores
    schedule: Schedule
    keys: CertificateKeys
    today: date
    clock: Callable[[], datetime]

    async def dispose(self, planned: PlannedEvaluation, part: int, *, dry_run: bool = False) -> Disposal:
        """List documents as disposed and remove their objects, or continue where an interrupted application stopped.

        Args:
            part: number of the part of the plan that the evaluation belongs to.

        Raises:
            IntegrityError: the manifest or an event is damaged.
            ManifestChanged: the manifest changed during every try.
            ServiceUnavailable: S3, or the folder, refuses or fails.
            StorageError: the same.
        """
        bucket, evaluation = self.stores.bucket, planned.evaluation
        found = await read_manifest(bucket, evaluation)
        if found is None:
            return Disposal()
        manifest: Manifest | None = found.manifest
        events = await read_events(bucket, evaluation) if self.schedule.events and planned.documents else {}
        due, others = self._select(found.manifest, planned, events)
        listed = _hashes(self._find_disposals(found.manifest, planned, part))
        items = await self._list_versions(evaluation, listed | _hashes(each.document for each in due))
        locks = await self._find_locks(items, found.manifest)
        locked = {_hash_in(item.key): lock for item, lock in locks.items()}
        held_back = Counter(each.state for each in others)
        held_back += Counter(
            state_of_lock(locked[each.document.sha256]) for each in due if each.document.sha256 in locked
        )
        due = [each for each in due if each.document.sha256 not in locked]
        if dry_run:
            return Disposal(due, held_back)
        if due:
            allowed = _hashes(each.document for each in due)
            manifest = await amend(
                bucket,
                evaluation,
                lambda current: self._change(current, planned, part, events, allowed),
                self.stores.tags,
            )
        ours = _hashes(self._find_disposals(manifest, planned, part)) if manifest else frozenset[str]()
        if manifest:  # matters may have been added between the two reads
            held_back[DocumentState.HOLD] += sum(
                each.document.sha256 not in ours and manifest.is_held(each.document.kind) for each in due
            )
            listed_items = [item for item in items if item not in locks and _hash_in(item.key) in ours]
            await self._remove([item for item in listed_items if not manifest.is_held(_kind_in(item.key))])
        return Disposal([each for each in due if each.document.sha256 in ours], held_back, bool(ours))

    async def sweep(self, planned: PlannedEvaluation, part: int, is_idle: IsIdle) -> SweptEvaluation:
        """Remove objects that workers have stored again since; raises as ``dispose``.

        Args:
            is_idle: returns whether no worker has an evaluation.

        Raises:
            StillWritten: a worker has the evaluation, or something keeps writing a document.
        """
        evaluation = planned.evaluation
        found = await read_manifest(self.stores.bucket, evaluation)
        if found is None or not (ours := self._find_disposals(found.manifest, planned, part)):
            return SweptEvaluation()
        if not await is_idle(evaluation):
            raise StillWritten(_BUSY)
        for _ in range(_SWEEPS):
            items = await self._list_versions(evaluation, _hashes(ours))
            locks = await self._find_locks(items, found.manifest)
            if len(locks) == len(items):
                break
            await self._remove([item for item in items if item not in locks])
        else:
            raise StillWritten("something keeps writing a document of which the archive has disposed")
        if not found.manifest.matters:
            await asyncio.to_thread(self.stores.versions.tidy, evaluation)
        kept = {_hash_in(item.key) for item in locks}
        if kept:
            await self._move_to_own_certificate(planned, part, kept)
        disposals = defaultdict[str, list[DisposedRecord]](list)
        for each in ours:
            if each.receipt and each.sha256 not in kept:
                disposals[each.receipt].append(each)
        return SweptEvaluation(disposals, len(kept))

    def _select(
        self, manifest: Manifest, planned: PlannedEvaluation, events: Mapping[str, EventRecord]
    ) -> tuple[list[AssessedDocument], list[AssessedDocument]]:
        """Return the documents that the plan names and that are due, and those that it names and that are not."""
        named = {(each.kind, each.sha256, each.rule) for each in planned.documents}
        assessed = assess(self.schedule, manifest, events, self.today)
        due = [
            each
            for each in assessed
            if each.state is DocumentState.DUE and (each.document.kind, each.document.sha256, each.rule) in named
        ]
        # Documents with the same bytes are disposed of together, or not at all.
        staying = _hashes(each.document for each in assessed if each not in due)
        due = [each for each in due if each.document.sha256 not in staying]
        hashes = {each.sha256 for each in planned.documents}
        others = [each for each in assessed if each not in due and each.document.sha256 in hashes]
        return due, [
            replace(each, state=DocumentState.KEPT) if each.state is DocumentState.DUE else each for each in others
        ]

    def _change(
        self,
        manifest: Manifest,
        planned: PlannedEvaluation,
        part: int,
        events: Mapping[str, EventRecord],
        allowed: Collection[str],
    ) -> Manifest | None:
        """Return the manifest that lists documents as disposed; None if no document is due any more."""
        due = [each for each in self._select(manifest, planned, events)[0] if each.document.sha256 in allowed]
        if not due:
            return None
        records = {each.document.key: self._make_record(manifest, each, part) for each in due}
        going = _hashes(each.document for each in due)
        return manifest.model_copy(
            update={
                "documents": tuple(each for each in manifest.documents if each.sha256 not in going),
                "disposed": (*manifest.disposed, *records.values()),
                # Older manifests name their bundle only as the reason of an outcome that may change now.
                "quarantined": manifest.quarantined_bundles,
            }
        )

    def _make_record(self, manifest: Manifest, due: AssessedDocument, part: int) -> DisposedRecord:
        document, decision = due.document, due.decision
        if decision.rule is None or decision.rule.clock is None or decision.started is None or decision.due is None:
            raise ValueError(due)
        return DisposedRecord(
            kind=document.kind,
            key=document.key,
            sha256=document.sha256,
            size=document.size,
            rule=decision.rule.name,
            clock=decision.rule.clock,
            started=decision.started,
            due=decision.due,
            archived_at=document.archived_at or manifest.archived_at,
            disposed_at=format_utc(self.clock().timestamp()),
            receipt=self.keys.key(manifest.environment, decision.rule.name, part),
        )

    def _find_disposals(self, manifest: Manifest, planned: PlannedEvaluation, part: int) -> tuple[DisposedRecord, ...]:
        """Return the disposals that this plan has listed in a manifest, and those that it is to complete."""
        environment = planned.environment
        receipts = {self.keys.key(environment, each.rule, part) for each in planned.documents} | set(planned.open)
        prefix = self.keys.prefix(environment)
        return tuple(
            each
            for each in manifest.disposed
            if each.receipt in receipts
            or (
                each.receipt and each.receipt.startswith(prefix) and each.receipt == leftover_key(each, planned.eval_id)
            )
        )

    async def _move_to_own_certificate(self, planned: PlannedEvaluation, part: int, hashes: Collection[str]) -> None:
        """Assign documents that S3 still keeps to a certificate of their own."""

        def change(manifest: Manifest) -> Manifest | None:
            ours = self._find_disposals(manifest, planned, part)
            moved = [
                each.model_copy(update={"receipt": leftover_key(each, planned.eval_id)})
                if each in ours and each.sha256 in hashes
                else each
                for each in manifest.disposed
            ]
            return manifest.model_copy(update={"disposed": tuple(moved)}) if moved != list(manifest.disposed) else None

        await amend(self.stores.bucket, planned.evaluation, change, self.stores.tags)

    async def _list_versions(self, evaluation: Evaluation, hashes: Collection[str]) -> list[ObjectVersion]:
        """Return all versions of objects with these hashes, with any extension."""
        if not hashes:
            return []
        items = await asyncio.to_thread(self.stores.versions.items, evaluation)
        return [item for item in items if _hash_in(item.key) in hashes and item.key.startswith(evaluation.environment)]

    async def _find_locks(self, items: Sequence[ObjectVersion], manifest: Manifest) -> dict[ObjectVersion, VersionLock]:
        """Return the locks that hold versions back; under a matter nothing is removed, not even what was left over."""
        held = {item: VersionLock("HOLD") for item in items if manifest.is_held(_kind_in(item.key))}
        now, lock_of = self.clock(), self.stores.versions.lock_of
        found = await asyncio.to_thread(lambda: {item: lock_of(item) for item in items if item not in held})
        return {**held, **{item: lock for item, lock in found.items() if lock and lock.holds(now)}}

    async def _remove(self, items: Sequence[ObjectVersion]) -> None:
        if items:
            await asyncio.to_thread(self.stores.versions.remove, items, bypass_governance=False)


def _hashes(records: Iterable[DocumentRecord | DisposedRecord]) -> frozenset[str]:
    return frozenset(each.sha256 for each in records)


def _kind_in(key: str) -> str:
    """Return the kind in the key of a document."""
    return key.split("/")[2]


def _hash_in(key: str) -> str:
    """Return the hash in the key of a document."""
    return key.rpartition("/")[2].partition(".")[0]
