"""Run docv-archive as a user does: as a process, with its own folder and environment."""

import asyncio
import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests import forked

# A prompt without an answer does not end its line, so the log line may follow it.
_ACCESS = re.compile(r'\{"action": .*"logger": "docv\.access".*\}\n')
KEY = "canary-4f1d8c02-key"


@dataclass(frozen=True)
class Finished:
    """A command that has ended.

    Attributes:
        code: its exit code.
        out: its standard output.
        err: its standard error, without the access log.
        access: the access log, which is part of standard error.
    """

    code: int
    out: str
    err: str
    access: tuple[dict[str, Any], ...] = ()


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
        """Start docv-archive without waiting for it; a fork saves the time of the imports."""
        return await forked.start(module, *arguments, **self._process_options())

    async def start_in_new_interpreter(
        self, *arguments: str, module: str = "scripts.cli"
    ) -> asyncio.subprocess.Process:
        """Start a command as a shell does; docv-archive by default."""
        return await forked.start_in_new_interpreter(module, *arguments, **self._process_options())

    def _process_options(self) -> dict[str, Any]:
        aws = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
        pipe = asyncio.subprocess.PIPE
        return {
            "cwd": self.folder,
            "env": {"PATH": "/usr/bin:/bin", "HOME": str(self.folder), "COLUMNS": "200", **aws, **self.settings},
            "stdin": pipe,
            "stdout": pipe,
            "stderr": pipe,
        }

    async def run(self, *arguments: str, given: str = "", seconds: float = 300) -> Finished:
        """Run a command to its end."""
        process = await self.start(*arguments)
        return await finish(process, given=given, seconds=seconds)


async def finish(process: asyncio.subprocess.Process, *, given: str = "", seconds: float = 300) -> Finished:
    """Wait until a command ends; kill it and fail if that takes too long."""
    try:
        out, err = await asyncio.wait_for(process.communicate(given.encode()), seconds)
    except TimeoutError:
        process.kill()
        await process.wait()
        raise AssertionError(f"the command took longer than {seconds} s") from None
    errors = err.decode()
    access = tuple(map(json.loads, _ACCESS.findall(errors)))
    return Finished(process.returncode or 0, out.decode(), _ACCESS.sub("", errors), access)


async def wait_until(condition: Callable[[], bool], process: asyncio.subprocess.Process, seconds: float = 60) -> None:
    """Wait until a condition is met while a command runs."""
    try:
        async with asyncio.timeout(seconds):
            while not condition():
                assert process.returncode is None, (await finish(process)).err
                await asyncio.sleep(0.05)
    except TimeoutError:
        process.terminate()
        raise AssertionError((await finish(process)).err) from None
