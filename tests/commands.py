"""Run our own command as a user does: as a process, in a folder of its own, with an environment of its own."""

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests import forked

KEY = "canary-4f1d8c02-key"


@dataclass(frozen=True)
class Finished:
    """A command that has ended.

    Attributes:
        code: its exit code.
        out: what it printed.
        err: what it said beside that.
    """

    code: int
    out: str
    err: str


@dataclass
class Shell:
    """A folder and an environment to run commands in.

    Attributes:
        folder: the working directory.
        settings: ``DOCV_…`` and other variables.
    """

    folder: Path
    settings: dict[str, str] = field(default_factory=dict)

    async def start(self, *arguments: str) -> asyncio.subprocess.Process:
        """Start our command and do not wait for it: as a fork, which is spared the imports."""
        return await forked.start("scripts.cli", *arguments, **self._place())

    async def start_anew(self, *arguments: str, module: str = "scripts.cli") -> asyncio.subprocess.Process:
        """Start a command as a shell does, ours unless another module is named."""
        return await forked.start_anew(module, *arguments, **self._place())

    def _place(self) -> dict[str, Any]:
        aws = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
        pipe = asyncio.subprocess.PIPE
        return {
            "cwd": self.folder,
            "env": {"PATH": "/usr/bin:/bin", "HOME": str(self.folder), "COLUMNS": "200", **aws, **self.settings},
            "stdin": pipe,
            "stdout": pipe,
            "stderr": pipe,
        }

    async def run(self, *arguments: str, given: str = "", seconds: float = 100) -> Finished:
        """Run a command to its end."""
        process = await self.start(*arguments)
        return await finish(process, given=given, seconds=seconds)


async def finish(process: asyncio.subprocess.Process, *, given: str = "", seconds: float = 100) -> Finished:
    """Wait for a command's end; kill it when that takes too long, and say so."""
    try:
        out, err = await asyncio.wait_for(process.communicate(given.encode()), seconds)
    except TimeoutError:
        process.kill()
        await process.wait()
        raise AssertionError(f"the command took longer than {seconds} s") from None
    return Finished(process.returncode or 0, out.decode(), err.decode())


async def reached(condition: Callable[[], bool], process: asyncio.subprocess.Process, seconds: float = 60) -> None:
    """Wait until something is so while a command runs."""
    try:
        async with asyncio.timeout(seconds):
            while not condition():
                assert process.returncode is None, (await finish(process)).err
                await asyncio.sleep(0.05)
    except TimeoutError:
        process.terminate()
        raise AssertionError((await finish(process)).err) from None
