"""A worker whose machine is faulty as long as its working directory contains a file with one of two names.

``full``: the disk is full. ``nameless``: no host name can be resolved.
"""

import errno
import os
from pathlib import Path
from typing import Any

from aiohttp.resolver import ThreadedResolver

from scripts.cli import main

COMMAND = ("tests.faults.sick_worker", "worker")
FULL, NAMELESS = "full", "nameless"


def _inject_faults(folder: Path) -> None:
    fsync, resolve = os.fsync, ThreadedResolver.resolve

    def fsync_or_fail(descriptor: int) -> None:
        # If a disk writes late, this call is the one that reports that it is full.
        if (folder / FULL).exists():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    async def resolve_or_fail(self: ThreadedResolver, host: str, *port: Any, **options: Any) -> Any:
        if (folder / NAMELESS).exists():
            raise OSError(None, "Name or service not known")
        return await resolve(self, host, *port, **options)

    os.fsync = fsync_or_fail  # type: ignore[assignment]  # it also takes objects with a descriptor
    ThreadedResolver.resolve = resolve_or_fail  # type: ignore[method-assign]


if __name__ == "__main__":
    _inject_faults(Path.cwd())
    main()
