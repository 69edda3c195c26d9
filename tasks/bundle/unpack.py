"""Unpack a bundle with ``tasks.bundle.zip``, using the spool and the errors of this project."""

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from tasks.bundle.zip import BadZip, Limits, Unpacked
from tasks.bundle.zip.reader import list_entries, read_entries
from tasks.errors import BadBundle
from tasks.memory.buffer_pool import Arena, Buffer
from tasks.memory.spool import Spool


def unpack(data: Buffer, limits: Limits, spool_dir: Path | None = None) -> Unpacked:
    """Read every file of a bundle; an unreadable file does not stop the others.

    Args:
        data: the whole bundle, in memory or mapped.
        limits: the limits on its contents; if all files together exceed ``in_memory``, every one is spooled.
        spool_dir: the folder for spooled files; the system's temporary folder by default.

    Raises:
        BadBundle: the bundle as a whole is damaged, ambiguous, or exceeds a limit.
        WindowNeeded: a decoder needs more memory than ``limits.max_window_bytes``.
        SpoolError: a file could not be spooled; the bundle is not the cause.
    """
    with _translated():
        checked = list_entries(data, limits)
        promised = sum(entry.size for entry in checked.entries)
        # All contents go into one buffer or to disk. malloc would keep the memory of separate buffers for the thread.
        stored = replace(limits, in_memory=0)
        if promised <= limits.in_memory:
            # A ZIP that holds more than it promises fails here; it is read again below, up to the real limits.
            bounds = replace(stored, max_unpacked_bytes=min(promised, limits.max_unpacked_bytes))
            with contextlib.suppress(BadZip):
                return read_entries(data, checked, bounds, Arena(promised))
        with contextlib.closing(Spool(spool_dir)) as spool:
            return read_entries(data, checked, stored, spool)


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except BadZip as error:
        raise BadBundle(error.cause, error.why) from None
