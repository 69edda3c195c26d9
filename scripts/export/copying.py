"""One evaluation copied out of the archive: its manifest, and every document that is wanted, checked on its way."""

import asyncio
import contextlib
import hashlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from scripts.archive_access.evaluation_rows import MISSING
from scripts.archive_access.revisions import NotExported, check_key, extension_of, find_manifest
from scripts.export.listing import NAME, write_listing
from scripts.export.names import UniqueNames
from scripts.export.staging import make_folders, open_for_owner
from tasks.errors import IntegrityError, SealingKeyMissing, StorageError
from tasks.model.evaluation import Evaluation
from tasks.storage.bucket import Bucket
from tasks.storage.manifest import DocumentRecord, Manifest

_MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True)
class DocumentSelection:
    """What is wanted of each evaluation.

    Attributes:
        kinds: kinds of documents; none stands for all.
        revision: number of a former revision; None is the current one.
        current: whether documents are left out that RiskOS no longer had, as far as that revision says.
    """

    kinds: Collection[str] = ()
    revision: int | None = None
    current: bool = False

    def select(self, manifest: Manifest) -> Iterator[tuple[int, DocumentRecord]]:
        """Yield the documents that are wanted, with their number in the manifest."""
        for number, document in enumerate(manifest.documents, 1):
            if not (self.current and document.superseded) and (not self.kinds or document.kind in self.kinds):
                yield number, document


@dataclass(frozen=True, slots=True)
class Exported:
    """What became of an evaluation that was to be exported.

    Attributes:
        eval_id: the evaluation.
        manifest: its manifest; None where there is none to rely upon.
        documents: how many were copied.
        bytes: how large they are together.
        problems: a sentence for each thing that is not as it was asked for.
    """

    eval_id: str
    manifest: Manifest | None = None
    documents: int = 0
    bytes: int = 0
    problems: tuple[str, ...] = ()

    @property
    def outcome(self) -> str:
        """Its outcome, or ``missing``."""
        return self.manifest.manifest_outcome.value if self.manifest else MISSING


@dataclass(frozen=True, slots=True)
class Copier:
    """Copies evaluations into a folder.

    Attributes:
        bucket: where they are.
        folder: the folder; each evaluation gets one of its own in it.
        selection: what is wanted of each.
        at_once: bounds the documents that are on their way.
    """

    bucket: Bucket
    folder: Path
    selection: DocumentSelection
    at_once: asyncio.Semaphore

    async def copy(self, evaluation: Evaluation) -> Exported:
        """Copy an evaluation; what is wrong in the archive is a problem of it, and nothing more.

        Raises:
            OSError: the disk does not take it.
        """
        try:
            committed = await find_manifest(self.bucket, evaluation, self.selection.revision)
        except (NotExported, StorageError) as error:
            return Exported(evaluation.eval_id, problems=(str(error),))
        if committed is None:
            return Exported(evaluation.eval_id, problems=("it is not in the archive",))
        folder = self.folder / evaluation.eval_id
        make_folders(folder)
        with _new_file(folder / _MANIFEST) as file:
            file.write(committed.stored.data)
        return await self._copy_documents(evaluation, committed.manifest, folder)

    async def _copy_documents(self, evaluation: Evaluation, manifest: Manifest, folder: Path) -> Exported:
        names = UniqueNames((_MANIFEST, NAME))
        wanted = [
            (number, names.give(document.name, document.media_type, extension_of(document)), document)
            for number, document in self.selection.select(manifest)
        ]
        async with asyncio.TaskGroup() as group:
            ended = [
                group.create_task(self._copy_one(evaluation, document, folder / path)) for _, path, document in wanted
            ]
        copied, problems = [], []
        for (number, path, document), task in zip(wanted, ended, strict=True):
            problem = task.result()
            if problem:
                problems.append(f"document {number} of the manifest: {problem}")
            else:
                copied.append((path, document, manifest.at_source(document)))
        if copied:
            write_listing(folder, copied)
        size = sum(document.size for _, document, _ in copied)
        return Exported(evaluation.eval_id, manifest, len(copied), size, tuple(problems))

    async def _copy_one(self, evaluation: Evaluation, document: DocumentRecord, path: Path) -> str | None:
        """Copy a document; return what is wrong with it, if anything."""
        async with self.at_once:
            try:
                check_key(evaluation, document)
                await _copy(self.bucket, document, path)
            except (NotExported, StorageError, IntegrityError, SealingKeyMissing) as error:
                return str(error)
        return None


async def _copy(bucket: Bucket, document: DocumentRecord, path: Path) -> None:
    make_folders(path.parent)
    with _new_file(path) as file:
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
            raise NotExported("its bytes are not those that were archived; nothing was kept of them")


@contextlib.contextmanager
def _new_file(path: Path) -> Iterator[IO[bytes]]:
    """Make a file for its owner only; it is removed when writing it does not come to its end."""
    with open(path, "xb", opener=open_for_owner) as file:
        try:
            yield file
        except BaseException:
            path.unlink(missing_ok=True)
            raise
