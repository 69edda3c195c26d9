"""The servers are real processes, and the tests wait for their end instead of a fixed time."""

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from redis import Redis

from worker.app import make_publishing_app
from worker.clients.embedded_redis import (
    EmbeddedError,
    embedded_redis,
    is_unused,
    server_binary,
    socket_path,
    was_started,
)
from worker.config.settings import Settings

PATIENCE = 30.0

_USER = """
import sys
from pathlib import Path
from worker.clients.embedded_redis import embedded_redis
with embedded_redis(Path(sys.argv[1])) as embedded:
    print(embedded.url, embedded.started, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    return tmp_path / "state"


class User:
    """Another process that uses the embedded Redis until a test ends it."""

    def __init__(self, state_dir: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _USER, str(state_dir)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout
        self.url, started = self._process.stdout.readline().split()
        self.started = started == "True"

    def end(self) -> None:
        self._process.communicate()

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


@contextlib.contextmanager
def user(state_dir: Path) -> Iterator[User]:
    other = User(state_dir)
    try:
        yield other
    finally:
        other.kill()


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "the condition did not become true"
        time.sleep(0.01)


def is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def send_command(url: str, command: str, *args: object) -> Any:
    with Redis.from_url(url, decode_responses=True) as redis:
        return redis.execute_command(command, *args)


def server_of(url: str) -> int:
    return int(send_command(url, "INFO", "server")["process_id"])


def has_no_users(state_dir: Path) -> bool:
    """Return whether neither a user nor the supervisor holds the lock."""
    with (state_dir / "redis.users").open("r+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def test_a_process_that_finds_no_redis_starts_one(state_dir: Path) -> None:
    with embedded_redis(state_dir) as embedded:
        assert embedded.started
        assert send_command(embedded.url, "PING")


def test_no_process_and_no_socket_are_left_when_the_only_user_ends(state_dir: Path) -> None:
    with embedded_redis(state_dir) as embedded:
        server = server_of(embedded.url)

    wait_until(lambda: not is_alive(server))
    wait_until(lambda: has_no_users(state_dir))
    assert not (state_dir / "redis.sock").exists()


def test_the_server_ends_after_an_error_of_its_user(state_dir: Path) -> None:
    def fail() -> None:
        with embedded_redis(state_dir) as embedded:
            raise LookupError(server_of(embedded.url))

    with pytest.raises(LookupError) as caught:
        fail()
    wait_until(lambda: not is_alive(caught.value.args[0]))


def test_the_server_is_durable_and_private(state_dir: Path) -> None:
    with embedded_redis(state_dir) as embedded:
        settings = send_command(embedded.url, "CONFIG", "GET", "*")
        assert (settings["appendonly"], settings["maxmemory-policy"]) == ("yes", "noeviction")
        assert (settings["port"], settings["save"]) == ("0", "")
        assert (state_dir / "redis.sock").stat().st_mode & 0o777 == 0o600
        assert state_dir.stat().st_mode & 0o777 == 0o700


def test_the_data_survives_a_restart_of_the_server(state_dir: Path) -> None:
    with embedded_redis(state_dir) as embedded:
        send_command(embedded.url, "SET", "accepted", "an evaluation")
        first = server_of(embedded.url)
    with embedded_redis(state_dir) as embedded:
        assert embedded.started
        assert server_of(embedded.url) != first
        assert send_command(embedded.url, "GET", "accepted") == "an evaluation"


def test_two_users_share_a_server_and_the_last_one_ends_it(state_dir: Path) -> None:
    with user(state_dir) as other:
        assert other.started
        with embedded_redis(state_dir) as embedded:
            assert (embedded.url, embedded.started) == (other.url, False)
            server = server_of(embedded.url)

            other.end()

            assert is_alive(server)
            assert send_command(embedded.url, "PING")
    wait_until(lambda: not is_alive(server))


def test_concurrent_users_start_one_server(state_dir: Path) -> None:
    found: list[tuple[int, bool]] = []
    all_started = threading.Barrier(4, timeout=PATIENCE)

    def use() -> None:
        with embedded_redis(state_dir) as embedded:
            found.append((server_of(embedded.url), embedded.started))
            all_started.wait()

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len({server for server, _ in found}) == 1
    assert sorted(started for _, started in found) == [False, False, False, True]


def test_a_killed_user_does_not_stop_the_server_of_others(state_dir: Path) -> None:
    with user(state_dir) as other:
        with embedded_redis(state_dir) as embedded:
            send_command(embedded.url, "SET", "accepted", "an evaluation")
            server = server_of(embedded.url)
            other.kill()
            assert send_command(embedded.url, "GET", "accepted") == "an evaluation"
        wait_until(lambda: not is_alive(server))


def test_the_server_ends_with_its_data_if_its_only_user_is_killed(state_dir: Path) -> None:
    with user(state_dir) as other:
        send_command(other.url, "SET", "accepted", "an evaluation")
        server = server_of(other.url)
        other.kill()

    wait_until(lambda: not is_alive(server))
    with embedded_redis(state_dir) as embedded:
        assert embedded.started
        assert send_command(embedded.url, "GET", "accepted") == "an evaluation"


def test_a_killed_server_is_started_again_with_its_data(state_dir: Path) -> None:
    with user(state_dir) as other:
        send_command(other.url, "SET", "accepted", "an evaluation")
        os.kill(server := server_of(other.url), signal.SIGKILL)
        with embedded_redis(state_dir) as embedded:
            assert embedded.started
            assert server_of(embedded.url) != server
            assert send_command(embedded.url, "GET", "accepted") == "an evaluation"


def test_a_child_that_inherits_the_lock_is_a_user_too(state_dir: Path) -> None:
    with embedded_redis(state_dir) as embedded:
        server, url = server_of(embedded.url), embedded.url
        child = subprocess.Popen(
            [sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE, pass_fds=(embedded.lock,)
        )
    try:
        assert send_command(url, "PING")
        assert is_alive(server)
    finally:
        child.communicate()
    wait_until(lambda: not is_alive(server))


@pytest.mark.parametrize("name", ["with blanks", "ümläute", "a#b", "a?b", "50%41", "a&b=c", "a@b:c"], ids=ascii)
def test_a_state_directory_may_have_any_name(tmp_path: Path, name: str) -> None:
    with embedded_redis(tmp_path / name) as embedded:
        assert send_command(embedded.url, "PING"), "the ledger's client"
        with make_publishing_app(Settings(redis_url=embedded.url)).connection_for_write() as queue:  # type: ignore[arg-type]  # pydantic wraps it in SecretStr
            assert queue.default_channel.client.ping(), "the queue's client"


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """Return a folder with a short path; pytest's are too long for these tests."""
    with tempfile.TemporaryDirectory(prefix="docv") as folder:
        yield Path(folder)


def deep_path(folder: Path) -> Path:
    return folder.joinpath(*["deeper"] * 30)


def path_with_umlauts(folder: Path) -> Path:
    """Return a path that is short enough for a socket in characters, and too long in bytes."""
    length = 99 - len(str(folder / "x" / "redis.sock"))
    return folder / ("ö" * length)


@pytest.mark.parametrize("make", [deep_path, path_with_umlauts])
def test_the_path_of_a_state_directory_may_be_longer_than_that_of_a_socket(
    short_folder: Path, make: Callable[[Path], Path]
) -> None:
    folder = make(short_folder)
    assert len(os.fsencode(folder / "redis.sock")) > 108
    with embedded_redis(folder) as embedded:
        send_command(embedded.url, "SET", "accepted", "an evaluation")
    with embedded_redis(folder) as embedded:
        assert send_command(embedded.url, "GET", "accepted") == "an evaluation"
        short = socket_path(folder).parent
        assert short != folder
    wait_until(lambda: not short.exists())
    wait_until(lambda: has_no_users(folder))


def remove_short_path_of(folder: Path) -> None:
    short = socket_path(folder).parent
    if short != folder:
        with contextlib.suppress(FileNotFoundError):
            short.rmdir()


def test_two_deep_state_directories_have_different_sockets(tmp_path: Path) -> None:
    folders = [tmp_path / ("deeper/" * 30) / name for name in ("one", "two")]
    first, second = map(socket_path, folders)
    assert first != second
    assert first == socket_path(folders[0])
    assert first.parent.parent == Path(tempfile.gettempdir())
    assert first.parent.stat().st_mode & 0o777 == 0o700
    for folder in folders:
        remove_short_path_of(folder)


def test_a_short_path_of_another_user_is_refused(tmp_path: Path) -> None:
    """The name is predictable, so another user could create the folder first and put a socket there."""
    deep = tmp_path / f"{uuid4()}" / ("deeper/" * 30)
    short = socket_path(deep).parent
    short.chmod(0o777)
    try:
        with pytest.raises(EmbeddedError), embedded_redis(deep):
            pass
    finally:
        (short / "redis.sock").unlink(missing_ok=True)
        short.rmdir()


def test_the_folder_of_another_user_s_redis_is_refused(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with user(state_dir) as other:
        assert send_command(other.url, "PING")
        monkeypatch.setattr(os, "getuid", lambda: state_dir.stat().st_uid + 1)
        with pytest.raises(EmbeddedError, match="another user owns it"), embedded_redis(state_dir):
            pass
        with pytest.raises(EmbeddedError, match="another user owns it"):
            was_started(state_dir)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can change the owner of a file")
def test_a_socket_of_another_user_is_refused(state_dir: Path) -> None:
    with user(state_dir):
        os.chown(state_dir / "redis.sock", 12345, -1)
        with pytest.raises(EmbeddedError, match=r"redis\.sock belongs to another user"), embedded_redis(state_dir):
            pass


def test_a_temporary_folder_with_setgid_is_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pod = tmp_path / "tmp"
    pod.mkdir()
    pod.chmod(0o2777)
    monkeypatch.setattr(tempfile, "tempdir", str(pod))
    assert socket_path(tmp_path / ("deeper/" * 30)).parent.parent == pod


def test_files_of_the_server_are_private(state_dir: Path) -> None:
    before = os.umask(0)
    try:
        with embedded_redis(state_dir) as embedded:
            send_command(embedded.url, "SET", "accepted", "an evaluation")
            written = [*state_dir.rglob("*")]
            assert state_dir / "appendonlydir" in written
            assert [path for path in written if path.stat().st_mode & 0o077] == []
    finally:
        os.umask(before)


def test_a_state_directory_that_cannot_be_made_is_reported_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EmbeddedError, match="state directory cannot be used"), embedded_redis(tmp_path / "file"):
        pass


def test_a_server_that_does_not_start_is_reported_with_its_log(state_dir: Path) -> None:
    state_dir.mkdir()
    (state_dir / "appendonlydir").write_text("no folder")
    with pytest.raises(EmbeddedError, match=r"does not start: see .*redis\.log"), embedded_redis(state_dir):
        pass
    wait_until(lambda: has_no_users(state_dir))


def test_a_supervisor_whose_server_does_not_start_ends_at_once(state_dir: Path) -> None:
    """Otherwise, a process that waits for the server would wait until its timeout."""
    state_dir.mkdir()
    with (state_dir / "redis.users").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        command = [
            sys.executable,
            "-m",
            "worker.clients.embedded_redis",
            "/bin/false",
            str(state_dir),
            str(state_dir / "redis.sock"),
        ]
        supervisor = subprocess.Popen(command)
        try:
            supervisor.wait(10)
        finally:
            supervisor.kill()
            supervisor.wait()


def test_a_server_binary_is_found() -> None:
    assert Path(server_binary()).is_file()


def test_a_user_that_outlives_the_server_still_counts(state_dir: Path) -> None:
    assert is_unused(state_dir)
    with user(state_dir) as other:
        server = server_of(other.url)
        os.kill(server, signal.SIGKILL)
        wait_until(lambda: not is_alive(server))
        assert not is_unused(state_dir)
    wait_until(lambda: is_unused(state_dir))
