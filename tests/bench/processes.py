"""Run commands of docv-archive as processes, and measure what they use."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_KIB = 1024


@dataclass(frozen=True, slots=True)
class CommandUsage:
    """The resources that a command used.

    Attributes:
        code: its exit code.
        out: its standard output.
        seconds: wall-clock time.
        cpu: seconds of processor time, including its children.
        memory: peak in bytes.
    """

    code: int
    out: str
    seconds: float
    cpu: float
    memory: int


def exit_on_sigterm() -> None:
    """Turn SIGTERM into SystemExit, so that the started processes are ended and temporary folders removed."""
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))


def run(arguments: Sequence[str], settings: Mapping[str, str], folder: Path) -> CommandUsage:
    """Run a command to its end."""
    began = time.monotonic()
    process = _start(["scripts.cli", *arguments], settings, folder, subprocess.PIPE)
    assert process.stdout  # opened above as a pipe
    out = process.stdout.read().decode()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return CommandUsage(
        code=process.returncode,
        out=out,
        seconds=time.monotonic() - began,
        cpu=usage.ru_utime + usage.ru_stime,
        memory=usage.ru_maxrss * _KIB,
    )


@contextlib.contextmanager
def running(
    module: str, *arguments: str, settings: Mapping[str, str], folder: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a module as a process until the block ends."""
    with (folder / f"{module}.log").open("ab") as log:
        process = _start([module, *arguments], settings, folder, log)
        try:
            yield process
        finally:
            process.terminate()
            process.wait(60)


def _start(arguments: Sequence[str], settings: Mapping[str, str], folder: Path, out: object) -> subprocess.Popen[bytes]:
    ours = {name: value for name, value in os.environ.items() if not name.startswith("DOCV_")}
    process: subprocess.Popen[bytes] = subprocess.Popen(
        [sys.executable, "-m", *arguments],
        env={**ours, **settings},
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=out,  # type: ignore[call-overload]  # a pipe or a file
        stderr=subprocess.DEVNULL if out is subprocess.PIPE else subprocess.STDOUT,
    )
    return process
