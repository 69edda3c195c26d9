"""Start commands as forks of a process that has loaded all modules, so that tests do not wait for imports.

Each fork is a process with its own arguments, environment, folder and streams. It takes signals and has an exit code.
`tests/scripts/test_cli_imports.py` starts each command in a new interpreter instead.
"""

import asyncio
import asyncio.base_subprocess
import atexit
import contextlib
import functools
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from tests.nursery import BEGUN, ENDED, LONGEST_ORDER, Order

_ROOT = Path(__file__).parents[1]


async def start(
    module: str,
    *arguments: str,
    cwd: Path,
    env: Mapping[str, str],
    stdin: Any,
    stdout: Any,
    stderr: Any,
    start_new_session: bool = False,
) -> asyncio.subprocess.Process:
    """Start a module as ``asyncio.create_subprocess_exec`` starts ``python -m``."""
    loop = asyncio.get_running_loop()
    protocol = asyncio.subprocess.SubprocessStreamProtocol(limit=1 << 16, loop=loop)
    order = Order(module, list(arguments), str(cwd), dict(env), start_new_session)
    connected = loop.create_future()
    transport = _Transport(loop, protocol, (order,), False, stdin, stdout, stderr, 0, waiter=connected)  # noqa: FBT003
    await connected
    return asyncio.subprocess.Process(transport, protocol, loop)


async def start_in_new_interpreter(module: str, *arguments: str, **options: Any) -> asyncio.subprocess.Process:
    """Start a module as the installed command does: in a new interpreter, without modules of the working directory."""
    return await asyncio.create_subprocess_exec(sys.executable, "-P", "-m", module, *arguments, **options)


class _Transport(asyncio.base_subprocess.BaseSubprocessTransport):
    """asyncio's transport, except that the nursery starts the process and reports its end."""

    def _start(self, args: tuple[Order], stdin: Any, stdout: Any, stderr: Any, **_: Any) -> None:
        self._proc = _Child(args[0], (stdin, stdout, stderr))
        self._loop.add_reader(self._proc.events, self._handle_end)

    def _handle_end(self) -> None:
        self._loop.remove_reader(self._proc.events)
        with self._proc.events:
            self._process_exited(self._proc.receive_number(ENDED))


class _Child:
    """A fork with the parts of ``subprocess.Popen`` that asyncio uses; asyncio sets its exit code."""

    def __init__(self, order: Order, wanted: tuple[Any, Any, Any]) -> None:
        self.returncode: int | None = None
        (self.stdin, self.stdout, self.stderr), theirs = zip(*map(_stream, range(3), wanted), strict=True)
        self.events, sender = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        written = json.dumps(asdict(order)).encode()
        assert len(written) <= LONGEST_ORDER, "pass long arguments in a file"
        with sender:
            socket.send_fds(_nursery(), [written], [sender.fileno(), *theirs])
        for descriptor in theirs:
            os.close(descriptor)
        self.pid = self.receive_number(BEGUN)

    def receive_number(self, event: bytes) -> int:
        """Return the number that the nursery sends with an event, which must be the next one."""
        word, _, number = self.events.recv(32).partition(b" ")
        assert word == event, f"expected {event!r} from the nursery, not {word!r}: see its standard error"
        return int(number)

    def poll(self) -> int | None:
        return self.returncode

    def send_signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _stream(number: int, wanted: Any) -> tuple[IO[bytes] | None, int]:
    """Return our end of a stream, if it is a pipe, and the descriptor of the other end."""
    if wanted == subprocess.DEVNULL:
        return None, os.open(os.devnull, os.O_RDWR)
    if wanted != subprocess.PIPE:
        return None, os.dup(wanted.fileno())
    read_end, write_end = os.pipe()
    ours, theirs = (write_end, read_end) if number == 0 else (read_end, write_end)
    return os.fdopen(ours, "wb" if number == 0 else "rb", 0), theirs


@functools.cache
def _nursery() -> socket.socket:
    """Start the nursery of this process; it ends when the last socket for its orders is closed."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.nursery", str(theirs.fileno())],
            cwd=_ROOT,
            env={"PATH": "/usr/bin:/bin"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
        )

    @atexit.register
    def end() -> None:
        ours.close()
        process.wait()

    return ours
