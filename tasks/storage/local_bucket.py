"""The archive in a folder of this machine, with the same guarantees as in S3.

obstore's local store has neither fsync nor compare-and-swap, so this module does not use it. Files are readable only by
their owner. Metadata and tags are not stored; the manifest has the same facts.
"""

import asyncio
import contextlib
import fcntl
import hashlib
import os
import secrets
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import IO

from tasks.errors import Fault, ManifestChanged, StorageError
from tasks.memory.buffer_pool import Buffer
from tasks.memory.spool import chunks
from tasks.storage.bucket import AlreadyExists, ListedObject, ObjectAttributes, StoredObject, check_size
from tasks.storage.write_guard import check_fresh, guarded_write
from worker.clients.disk_errors import explain_disk_error
from worker.clients.file_system import opened_folder

_FILE_MODE = 0o600
_FOLDER_MODE = 0o700
_CHUNK = 1 << 20
_LISTED = 1_000
_TEMPORARY = ".manifest.part"
# Only Linux has it; with O_DIRECTORY, other systems fail and open no file.
_UNNAMED = getattr(os, "O_TMPFILE", os.O_DIRECTORY)


class LocalBucket:
    """A bucket in a folder; ``tasks.storage.bucket.Bucket`` documents what each method guarantees.

    Args:
        root: the folder; the first write creates it.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    async def create(self, key: str, data: Buffer, attributes: ObjectAttributes) -> None:  # noqa: ARG002  # files have no attributes
        """Write an object unless its key is taken."""
        async with guarded_write(key, limited=False):
            await _run_to_completion(self._create, key, data)

    async def replace(self, key: str, data: bytes, attributes: ObjectAttributes, etag: str | None) -> None:  # noqa: ARG002
        """Replace the version of an object that has this ETag, or create the object if ``etag`` is None."""
        async with guarded_write(key, limited=False):
            await _run_to_completion(self._replace, key, data, etag)

    async def read(self, key: str, max_bytes: int | None = None) -> StoredObject | None:
        """Return an object, or None if it does not exist; raise IntegrityError if it is larger than ``max_bytes``."""
        return await asyncio.to_thread(self._read, key, max_bytes)

    async def stream(self, key: str) -> AsyncGenerator[bytes, None] | None:
        """Return an object's bytes in chunks, or None if it does not exist."""
        file = await asyncio.to_thread(self._open, key)
        return None if file is None else _chunks(file)

    async def digest(self, key: str) -> str | None:
        """Read an object back and return the SHA-256 of its bytes; None if it does not exist."""
        return await asyncio.to_thread(self._digest, key)

    async def read_beginning(self, key: str, size: int) -> bytes | None:
        """Return the first bytes of an object, at most ``size``; None if it does not exist."""
        return await asyncio.to_thread(self._read_beginning, key, size)

    async def replace_version(self, key: str, data: Buffer, attributes: ObjectAttributes) -> bool:  # noqa: ARG002  # as Bucket has it
        """Return False: a folder keeps no former versions."""
        return False

    async def put_tags(self, key: str, attributes: ObjectAttributes) -> None:
        """Do nothing: files have no tags."""

    def _read_beginning(self, key: str, size: int) -> bytes | None:
        if file := self._open(key):
            with file, _translated("read"):
                return file.read(size)
        return None

    async def list_objects(self, prefix: str, after: str = "") -> AsyncGenerator[list[ListedObject], None]:
        """Yield the objects below a prefix that ends with a slash, up to 1,000 at a time, in order of their keys."""
        listing = self._walk(prefix, after)
        while some := await asyncio.to_thread(lambda: list(islice(listing, _LISTED))):
            yield some

    def _walk(self, prefix: str, after: str) -> Iterator[ListedObject]:
        names = []
        with _translated("list"), contextlib.suppress(FileNotFoundError), os.scandir(self._root / prefix) as entries:
            names = sorted(f"{each.name}/" if each.is_dir(follow_symlinks=False) else each.name for each in entries)
        for key in (prefix + name for name in names):
            if key.endswith("/"):
                # A folder that sorts before ``after`` holds nothing that sorts after it.
                if key > after[: len(key)] or after.startswith(key):
                    yield from self._walk(key, after)
            elif key > after:
                with _translated("list"), contextlib.suppress(FileNotFoundError):
                    status = (self._root / key).lstat()
                    yield ListedObject(key, status.st_size, status.st_mtime)

    async def remove(self, keys: Iterable[str]) -> bool:
        """Remove objects, and folders that become empty; return False if the system does not allow it.

        A worker calls it for objects that it wrote while their evaluation was erased. In S3, workers may not delete.
        """
        return await asyncio.to_thread(self._remove, keys)

    def _remove(self, keys: Iterable[str]) -> bool:
        try:
            for path in (self._root / key for key in keys):
                path.unlink(missing_ok=True)
                with contextlib.suppress(FileNotFoundError):
                    sync_folder(path.parent)
                for folder in (path.parent, path.parent.parent):
                    with contextlib.suppress(OSError):
                        folder.rmdir()
        except OSError:
            return False
        return True

    def _create(self, key: str, data: Buffer) -> None:
        path = self._root / key
        with _translated("create"):
            _make_folders(path.parent, self._root)
            with _write_unnamed(path.parent, data) as link_to:
                check_fresh()
                try:
                    # A link appears complete, and never replaces a file.
                    link_to(path)
                except FileExistsError:
                    raise AlreadyExists from None
                sync_folder(path.parent)

    def _replace(self, key: str, data: bytes, etag: str | None) -> None:
        path = self._root / key
        with _translated("replace"):
            _make_folders(path.parent, self._root)
            with _write_unnamed(path.parent, data) as link_to, opened_folder(path.parent) as folder:
                # The folder itself is locked: no lock file is left behind.
                fcntl.flock(folder, fcntl.LOCK_EX)
                current = self._read(key)
                if (current.etag if current else None) != etag:
                    raise ManifestChanged
                # A process that was killed here may have left a file of this name; the lock excludes other processes.
                temporary = path.with_name(_TEMPORARY)
                temporary.unlink(missing_ok=True)
                link_to(temporary)
                temporary.replace(path)
                sync_folder(path.parent)

    def _read(self, key: str, max_bytes: int | None = None) -> StoredObject | None:
        with _translated("read"), contextlib.suppress(FileNotFoundError):
            if max_bytes is not None:
                check_size((self._root / key).stat().st_size, max_bytes)
            data = (self._root / key).read_bytes()
            return StoredObject(data=data, etag=hashlib.sha256(data).hexdigest())
        return None

    def _open(self, key: str) -> IO[bytes] | None:
        with _translated("read"), contextlib.suppress(FileNotFoundError):
            return (self._root / key).open("rb")
        return None

    def _digest(self, key: str) -> str | None:
        with _translated("read"), contextlib.suppress(FileNotFoundError), (self._root / key).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
        return None


async def _run_to_completion(write: Callable[..., None], *arguments: object) -> None:
    """Run a function in a thread; a cancellation cannot stop the thread, so it is raised when the thread is done."""
    writing = asyncio.ensure_future(asyncio.to_thread(write, *arguments))
    try:
        await asyncio.shield(writing)
    except asyncio.CancelledError:
        await asyncio.wait([writing])
        writing.exception()  # else asyncio logs that it was never retrieved
        raise


async def _chunks(file: IO[bytes]) -> AsyncGenerator[bytes, None]:
    with file, _translated("read"):
        while chunk := await asyncio.to_thread(file.read, _CHUNK):
            yield chunk


@contextlib.contextmanager
def _write_unnamed(folder: Path, data: Buffer) -> Iterator[Callable[[Path], None]]:
    """Write the bytes to an unnamed file and flush it to the disk; yield a function that links it to a path.

    If the process is killed before that, nothing is left, because the system removes an unnamed file with its last
    descriptor. File systems without unnamed files need a temporary file, which may be left.
    """
    try:
        descriptor = os.open(folder, os.O_WRONLY | _UNNAMED, _FILE_MODE)
        temporary = None
    except OSError:
        temporary = folder / f".{secrets.token_hex(8)}.part"
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _FILE_MODE)
    try:
        with open(descriptor, "wb", buffering=0) as file:  # noqa: PTH123  # a descriptor has no path
            for chunk in chunks(data, 0, len(data), _CHUNK):
                left = memoryview(chunk)
                while left:
                    left = left[file.write(left) :]
            os.fsync(descriptor)
            yield partial(_link, temporary or Path(f"/proc/self/fd/{descriptor}"))
    finally:
        if temporary:
            temporary.unlink(missing_ok=True)


def _link(source: Path, path: Path) -> None:
    with opened_folder(path.parent) as folder:
        # The system follows the link in /proc to the file only if a folder's descriptor is given.
        os.link(source, path.name, dst_dir_fd=folder, follow_symlinks=True)


def _make_folders(folder: Path, root: Path) -> None:
    if folder.is_dir():
        return
    if folder != root:
        _make_folders(folder.parent, root)
    folder.mkdir(mode=_FOLDER_MODE, parents=folder == root, exist_ok=True)
    sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Flush the folder's list of names to the disk."""
    with opened_folder(folder) as descriptor:
        os.fsync(descriptor)


@contextlib.contextmanager
def _translated(doing: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(doing, explain_disk_error(error, "DOCV_ARCHIVE_URL"), Fault.MACHINE) from None
