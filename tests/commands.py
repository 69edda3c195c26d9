"""Run our own command as a user does: as a process, in a folder of its own, with an environment of its own."""

import asyncio
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

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

    async def start(self, *arguments: str, module: str = "scripts.cli") -> asyncio.subprocess.Process:
        """Start a command, ours unless another module is named, and do not wait for it."""
        aws = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", module, *arguments),
            cwd=self.folder,
            env={"PATH": "/usr/bin:/bin", "HOME": str(self.folder), "COLUMNS": "200", **aws, **self.settings},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

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
