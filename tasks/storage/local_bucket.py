"""The archive in a folder of this machine, with the same promises as a bucket.

Written by hand because obstore's local store neither asks the disk to keep what it wrote nor replaces by
compare-and-swap. Files are readable by their owner only; metadata and tags stand in the manifest alone.
"""

import asyncio
import contextlib
import fcntl
import hashlib
import os
import secrets
from collections.abc import AsyncGenerator, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import IO

from tasks.errors import ManifestChanged, StorageError
from tasks.memory.buffer_pool import Buffer
from tasks.memory.spool import chunks
from tasks.storage.bucket import AlreadyExists, ObjectAttributes, StoredObject

_FILE_MODE = 0o600
_FOLDER_MODE = 0o700
_CHUNK = 1 << 20
_TEMPORARY = ".manifest.part"
# Linux; what other systems answer to it is no file.
_NAMELESS = getattr(os, "O_TMPFILE", os.O_DIRECTORY)


class LocalBucket:
    """A bucket in a folder; see ``tasks.storage.bucket.Bucket`` for what each method promises.

    Args:
        root: the folder; made when first written to.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    async def create(self, key: str, data: Buffer, attributes: ObjectAttributes) -> None:  # noqa: ARG002  # see the module
        """Write an object unless there is one."""
        await asyncio.to_thread(self._create, key, data)

    async def replace(self, key: str, data: bytes, attributes: ObjectAttributes, etag: str | None) -> None:  # noqa: ARG002
        """Write an object if it still is the version we read, or still is not there (None)."""
        await asyncio.to_thread(self._replace, key, data, etag)

    async def read(self, key: str) -> StoredObject | None:
        """Return an object, or None where there is none."""
        return await asyncio.to_thread(self._read, key)

    async def stream(self, key: str) -> AsyncGenerator[bytes, None] | None:
        """Return an object's bytes, chunk by chunk; None where there is none."""
        file = await asyncio.to_thread(self._open, key)
        return None if file is None else _chunks(file)

    async def digest(self, key: str) -> str | None:
        """Return the SHA-256 of an object's bytes, read back; None where there is none."""
        return await asyncio.to_thread(self._digest, key)

    def _create(self, key: str, data: Buffer) -> None:
        path = self._root / key
        with _translated("create"):
            _make_folders(path.parent, self._root)
            with _write_nameless(path.parent, data) as give_name:
                try:
                    # A link is made for all to see at once, and never over something.
                    give_name(path)
                except FileExistsError:
                    raise AlreadyExists from None
                _sync_folder(path.parent)

    def _replace(self, key: str, data: bytes, etag: str | None) -> None:
        path = self._root / key
        with _translated("replace"):
            _make_folders(path.parent, self._root)
            with _write_nameless(path.parent, data) as give_name, _opened(path.parent) as folder:
                # The folder itself is locked: no lock file is left behind.
                fcntl.flock(folder, fcntl.LOCK_EX)
                there = self._read(key)
                if (there.etag if there else None) != etag:
                    raise ManifestChanged
                # Whoever died here left a file of this name, and nobody else is here.
                beside = path.with_name(_TEMPORARY)
                beside.unlink(missing_ok=True)
                give_name(beside)
                beside.replace(path)
                _sync_folder(path.parent)

    def _read(self, key: str) -> StoredObject | None:
        with _translated("read"), contextlib.suppress(FileNotFoundError):
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


async def _chunks(file: IO[bytes]) -> AsyncGenerator[bytes, None]:
    with file, _translated("read"):
        while chunk := await asyncio.to_thread(file.read, _CHUNK):
            yield chunk


@contextlib.contextmanager
def _write_nameless(folder: Path, data: Buffer) -> Iterator[Callable[[Path], None]]:
    """Write the bytes to a file without a name, kept by the disk; yield what gives it one.

    Whoever dies before that leaves nothing behind, for a file without a name goes with its last user. Where the file
    system knows none, it has a name that says so, and may stay.
    """
    try:
        descriptor = os.open(folder, os.O_WRONLY | _NAMELESS, _FILE_MODE)
        temporary = None
    except OSError:
        temporary = folder / f".{secrets.token_hex(8)}.part"
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _FILE_MODE)
    try:
        with open(descriptor, "wb", buffering=0) as file:  # noqa: PTH123  # a descriptor has no path
            for piece in chunks(data, 0, len(data), _CHUNK):
                left = memoryview(piece)
                while left:
                    left = left[file.write(left) :]
            os.fsync(descriptor)
            yield partial(_link, temporary or Path(f"/proc/self/fd/{descriptor}"))
    finally:
        if temporary:
            temporary.unlink(missing_ok=True)


def _link(source: Path, path: Path) -> None:
    with _opened(path.parent) as folder:
        # Only with a folder's descriptor does the system follow the link that /proc has to the file.
        os.link(source, path.name, dst_dir_fd=folder, follow_symlinks=True)


@contextlib.contextmanager
def _opened(folder: Path) -> Iterator[int]:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _make_folders(folder: Path, root: Path) -> None:
    if folder.is_dir():
        return
    if folder != root:
        _make_folders(folder.parent, root)
    folder.mkdir(mode=_FOLDER_MODE, parents=folder == root, exist_ok=True)
    _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    """Ask the disk to keep the folder's list of names."""
    with _opened(folder) as descriptor:
        os.fsync(descriptor)


@contextlib.contextmanager
def _translated(doing: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(doing, error.strerror or type(error).__name__) from None
