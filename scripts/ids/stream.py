"""Read the bytes of a source, decompressed, and give access to its beginning; it need not be seekable."""

import gzip
import io
import shutil
import sys
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from typing_extensions import Buffer

from scripts.ids.errors import BadSource
from scripts.ids.s3 import download, is_s3
from scripts.ids.scratch import scratch_file, scratch_folder, translate_disk_errors
from worker.config.settings import Settings

HEAD = 1 << 20
"""The number of bytes that the format is detected from."""
_GZIP = b"\x1f\x8b"
_AT_ONCE = 1 << 17


@dataclass(frozen=True, slots=True)
class Stream:
    """The content of a source.

    Attributes:
        head: its first bytes, at most ``HEAD``.
        file: all of it, from the first byte; it is not seekable.
    """

    head: bytes
    file: IO[bytes]


@contextmanager
def open_stream(source: str, settings: Settings | None) -> Iterator[Stream]:
    """Open a path, ``-`` for standard input, or ``s3://bucket/key``, and decompress gzip.

    Raises:
        BadSource: it cannot be opened, or cannot be read then or later.
        ServiceUnavailable: S3, or this machine's disk, fails.
        SettingsError: there are no credentials for S3.
    """
    with ExitStack() as stack:
        stream = _detect_gzip(stack.enter_context(_open_raw(source, settings)), stack)
        if stream.head.startswith(_GZIP):
            stream = _detect_gzip(stack.enter_context(gzip.GzipFile(fileobj=stream.file)), stack)
        yield stream


@contextmanager
def seekable_copy(file: IO[bytes], folder: Path | None) -> Iterator[IO[bytes]]:
    """Yield a seekable copy.

    Raises:
        BadSource: the file cannot be read to its end.
        ServiceUnavailable: the disk is full.
    """
    with scratch_file(folder) as copy:
        with translate_disk_errors(folder):
            shutil.copyfileobj(file, copy, _AT_ONCE)
            copy.seek(0)
        yield copy


@contextmanager
def _open_raw(source: str, settings: Settings | None) -> Iterator[IO[bytes]]:
    if source == "-":
        yield sys.stdin.buffer
    elif is_s3(source):
        with scratch_file(folder := scratch_folder(settings)) as file:
            download(source, settings.s3_endpoint if settings else None, file, folder)
            yield file
    else:
        try:
            with _translated():
                file = Path(source).open("rb")  # noqa: SIM115  # closed below
        except ValueError:  # a NUL in it
            raise BadSource("it is not a valid file name") from None
        with file:
            yield file


def _detect_gzip(file: IO[bytes] | gzip.GzipFile, stack: ExitStack) -> Stream:
    with _translated():
        head = file.read(HEAD)
    return Stream(head, stack.enter_context(io.BufferedReader(_Rejoined(head, file), _AT_ONCE)))


class _Rejoined(io.RawIOBase):
    """A file with its first bytes, already read, put back in front; it translates errors of reading."""

    def __init__(self, head: bytes, rest: IO[bytes] | gzip.GzipFile) -> None:
        self._head = io.BytesIO(head)
        self._rest = rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Buffer, /) -> int:
        view = memoryview(buffer)
        with _translated():
            data = self._head.read(len(view)) or self._rest.read(len(view))
        view[: len(data)] = data
        return len(data)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except EOFError:
        raise BadSource("the gzip file is truncated, so its last IDs are missing: download it again") from None
    except (gzip.BadGzipFile, zlib.error):
        raise BadSource("the gzip file is damaged: download it again") from None
    except OSError as error:
        raise BadSource(f"it cannot be read: {error.strerror or type(error).__name__}") from None
