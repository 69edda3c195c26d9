"""Copy the manifest and the selected documents of one evaluation out of the archive, and verify them."""

import asyncio
import contextlib
import hashlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from scripts.archive_access.evaluation_rows import MISSING
from scripts.archive_access.extensions import extension_of
from scripts.archive_access.revisions import NotExported, check_key, find_manifest
from scripts.export.listing import NAME, ListedDocument, write_listing
from scripts.export.names import UniqueNames
from scripts.export.staging import make_folders, new_file
from tasks.errors import IntegrityError, SealingKeyMissing, StorageError
from tasks.model.evaluation import Evaluation
from tasks.storage.bucket import Bucket
from tasks.storage.manifest import Manifest
from tasks.storage.manifest_records import DisposedRecord, DocumentRecord

_MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True)
class DocumentSelection:
    """What to export of each evaluation.

    Attributes:
        kinds: kinds of documents; empty for all.
        revision: number of a former revision; None for the current one.
        current: whether to leave out documents that RiskOS no longer had, according to that revision.
    """

    kinds: Collection[str] = ()
    revision: int | None = None
    current: bool = False

    def select(self, manifest: Manifest) -> Iterator[tuple[int, DocumentRecord]]:
        """Yield the selected documents, each with its number in the manifest."""
        for number, document in enumerate(manifest.documents, 1):
            if not (self.current and document.superseded) and self._has(document.kind):
                yield number, document

    def select_disposed(self, manifest: Manifest, latest: Manifest) -> list[DisposedRecord]:
        """Return the selected documents that were disposed of, including those disposed of after the manifest was made.

        Args:
            latest: the current manifest of the same evaluation.
        """
        keys = {each.key for each in manifest.documents} | {each.key for each in manifest.disposed}
        return [each for each in latest.disposed if each.key in keys and self._has(each.kind)]

    def _has(self, kind: str) -> bool:
        return not self.kinds or kind in self.kinds


@dataclass(frozen=True, slots=True)
class Exported:
    """The result of exporting one evaluation.

    Attributes:
        eval_id: the evaluation.
        manifest: its manifest, or None if it is missing or damaged.
        documents: number of copied documents.
        bytes: their total size.
        disposed: number of selected documents that were disposed of.
        problems: a sentence for each thing that is missing or was changed.
    """

    eval_id: str
    manifest: Manifest | None = None
    documents: int = 0
    bytes: int = 0
    disposed: int = 0
    problems: tuple[str, ...] = ()

    @property
    def is_complete(self) -> bool:
        """Whether everything that was selected is there."""
        return not self.problems

    @property
    def outcome(self) -> str:
        """Its outcome, or ``missing``."""
        return self.manifest.manifest_outcome.value if self.manifest else MISSING


@dataclass(frozen=True, slots=True)
class Copier:
    """Copies evaluations into a folder.

    Attributes:
        bucket: the archive.
        folder: the parent of the folders of evaluations.
        selection: what to export of each evaluation.
        at_once: limits how many documents are copied at the same time.
    """

    bucket: Bucket
    folder: Path
    selection: DocumentSelection
    at_once: asyncio.Semaphore

    async def copy(self, evaluation: Evaluation) -> Exported:
        """Copy an evaluation; faults in the archive become problems of the result.

        Raises:
            OSError: writing to disk fails.
        """
        try:
            committed = latest = await find_manifest(self.bucket, evaluation, self.selection.revision)
            if self.selection.revision:
                latest = await find_manifest(self.bucket, evaluation, None)
        except (NotExported, StorageError) as error:
            return Exported(evaluation.eval_id, problems=(str(error),))
        if committed is None or latest is None:
            return Exported(evaluation.eval_id, problems=("it is not in the archive",))
        folder = self.folder / evaluation.eval_id
        make_folders(folder)
        with new_file(folder / _MANIFEST) as file:
            file.write(committed.stored.data)
        disposed = self.selection.select_disposed(committed.manifest, latest.manifest)
        return await self._copy_documents(evaluation, committed.manifest, disposed, folder)

    async def _copy_documents(
        self, evaluation: Evaluation, manifest: Manifest, disposed: Sequence[DisposedRecord], folder: Path
    ) -> Exported:
        gone = {each.key for each in disposed}
        names = UniqueNames((_MANIFEST, NAME))
        wanted = [
            (number, names.allocate(document.name, document.media_type, extension_of(document)), document)
            for number, document in self.selection.select(manifest)
            if document.key not in gone
        ]
        async with asyncio.TaskGroup() as group:
            ended = [
                group.create_task(self._copy_one(evaluation, document, folder / path)) for _, path, document in wanted
            ]
        rows = [
            ListedDocument(path, document, manifest.at_source(document), task.result())
            for (_, path, document), task in zip(wanted, ended, strict=True)
        ]
        if rows or disposed:
            write_listing(folder, rows, disposed)
        problems = tuple(
            f"document {number} of the manifest: {row.problem}"
            for (number, _, _), row in zip(wanted, rows, strict=True)
            if row.problem
        )
        sizes = [row.document.size for row in rows if not row.problem]
        return Exported(evaluation.eval_id, manifest, len(sizes), sum(sizes), len(disposed), problems)

    async def _copy_one(self, evaluation: Evaluation, document: DocumentRecord, path: Path) -> str | None:
        """Copy a document; return its problem, or None if the copy is complete."""
        async with self.at_once:
            try:
                check_key(evaluation, document)
                await _copy(self.bucket, document, path)
            except (NotExported, StorageError, IntegrityError, SealingKeyMissing) as error:
                return str(error)
        return None


async def _copy(bucket: Bucket, document: DocumentRecord, path: Path) -> None:
    make_folders(path.parent)
    with new_file(path) as file:
        pieces = await bucket.stream(document.key)
        if pieces is None:
            raise NotExported("it is not in the archive")
        digest, size = hashlib.sha256(), 0
        async with contextlib.aclosing(pieces):
            async for piece in pieces:
                digest.update(piece)
                size += file.write(piece)
                if size > document.size:
                    break
        if (size, digest.hexdigest()) != (document.size, document.sha256):
            raise NotExported("its bytes differ from the archived ones; it was not exported")
