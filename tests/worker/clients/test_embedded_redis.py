"""Servers are real processes here; whoever waits for one of them, waits for its end and not for a time."""

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
from worker.clients.embedded_redis import EmbeddedError, embedded_redis, server_binary, socket_path
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
    """Another process that uses the embedded Redis until it is told to end."""

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


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline, "it does not happen"
        time.sleep(0.01)


def is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def ask(url: str, command: str, *args: object) -> Any:
    with Redis.from_url(url, decode_responses=True) as redis:
        return redis.execute_command(command, *args)


def server_of(url: str) -> int:
    return int(ask(url, "INFO", "server")["process_id"])


def has_no_users(state_dir: Path) -> bool:
    """Whether neither a user nor the keeper holds the lock."""
    with (state_dir / "redis.users").open("r+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def test_whoever_finds_no_redis_starts_one(state_dir: Path) -> None:
    with embedded_redis(state_dir) as embedded:
        assert embedded.started
        assert ask(embedded.url, "PING")


def test_when_its_only_user_ends_no_process_and_no_socket_are_left(state_dir: Path) -> None:
    with embedded_redis(state_dir) as embedded:
        server = server_of(embedded.url)

    until(lambda: not is_alive(server))
    until(lambda: has_no_users(state_dir))
    assert not (state_dir / "redis.sock").exists()


def test_an_error_of_its_user_ends_it_as_well(state_dir: Path) -> None:
    def fail() -> None:
        with embedded_redis(state_dir) as embedded:
            raise LookupError(server_of(embedded.url))

    with pytest.raises(LookupError) as caught:
        fail()
    until(lambda: not is_alive(caught.value.args[0]))


def test_it_is_a_redis_that_loses_nothing_and_that_nobody_else_can_reach(state_dir: Path) -> None:
    with embedded_redis(state_dir) as embedded:
        settings = ask(embedded.url, "CONFIG", "GET", "*")
        assert (settings["appendonly"], settings["maxmemory-policy"]) == ("yes", "noeviction")
        assert (settings["port"], settings["save"]) == ("0", "")
        assert (state_dir / "redis.sock").stat().st_mode & 0o777 == 0o600
        assert state_dir.stat().st_mode & 0o777 == 0o700


def test_what_was_written_is_there_again_next_time(state_dir: Path) -> None:
    with embedded_redis(state_dir) as embedded:
        ask(embedded.url, "SET", "accepted", "an evaluation")
        first = server_of(embedded.url)
    with embedded_redis(state_dir) as embedded:
        assert embedded.started
        assert server_of(embedded.url) != first
        assert ask(embedded.url, "GET", "accepted") == "an evaluation"


def test_two_users_share_one_redis_and_the_last_one_ends_it(state_dir: Path) -> None:
    with user(state_dir) as other:
        assert other.started
        with embedded_redis(state_dir) as embedded:
            assert (embedded.url, embedded.started) == (other.url, False)
            server = server_of(embedded.url)

            other.end()

            assert is_alive(server)
            assert ask(embedded.url, "PING")
    until(lambda: not is_alive(server))


def test_users_that_come_at_once_start_one_redis(state_dir: Path) -> None:
    found: list[tuple[int, bool]] = []
    all_have_it = threading.Barrier(4, timeout=PATIENCE)

    def use() -> None:
        with embedded_redis(state_dir) as embedded:
            found.append((server_of(embedded.url), embedded.started))
            all_have_it.wait()

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len({server for server, _ in found}) == 1
    assert sorted(started for _, started in found) == [False, False, False, True]


def test_a_user_that_is_killed_takes_nothing_along(state_dir: Path) -> None:
    with user(state_dir) as other:
        with embedded_redis(state_dir) as embedded:
            ask(embedded.url, "SET", "accepted", "an evaluation")
            server = server_of(embedded.url)
            other.kill()
            assert ask(embedded.url, "GET", "accepted") == "an evaluation"
        until(lambda: not is_alive(server))


def test_a_redis_whose_only_user_is_killed_ends_and_keeps_what_it_had(state_dir: Path) -> None:
    with user(state_dir) as other:
        ask(other.url, "SET", "accepted", "an evaluation")
        server = server_of(other.url)
        other.kill()

    until(lambda: not is_alive(server))
    with embedded_redis(state_dir) as embedded:
        assert embedded.started
        assert ask(embedded.url, "GET", "accepted") == "an evaluation"


def test_a_redis_that_was_killed_is_started_again_by_the_next_user_with_what_it_had(state_dir: Path) -> None:
    with user(state_dir) as other:
        ask(other.url, "SET", "accepted", "an evaluation")
        os.kill(server := server_of(other.url), signal.SIGKILL)
        with embedded_redis(state_dir) as embedded:
            assert embedded.started
            assert server_of(embedded.url) != server
            assert ask(embedded.url, "GET", "accepted") == "an evaluation"


def test_a_child_that_inherits_the_lock_is_a_user_too(state_dir: Path) -> None:
    with embedded_redis(state_dir) as embedded:
        server, url = server_of(embedded.url), embedded.url
        child = subprocess.Popen(
            [sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE, pass_fds=(embedded.lock,)
        )
    try:
        assert ask(url, "PING")
        assert is_alive(server)
    finally:
        child.communicate()
    until(lambda: not is_alive(server))


@pytest.mark.parametrize("name", ["with blanks", "ümläute", "a#b", "a?b", "50%41", "a&b=c", "a@b:c"], ids=ascii)
def test_a_state_folder_may_have_any_name(tmp_path: Path, name: str) -> None:
    with embedded_redis(tmp_path / name) as embedded:
        assert ask(embedded.url, "PING"), "the ledger's client"
        with make_publishing_app(Settings(redis_url=embedded.url)).connection_for_write() as queue:  # type: ignore[arg-type]  # pydantic seals it
            assert queue.default_channel.client.ping(), "the queue's client"


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """pytest's own are too long to be just short enough."""
    with tempfile.TemporaryDirectory(prefix="docv") as folder:
        yield Path(folder)


def deeper(folder: Path) -> Path:
    return folder.joinpath(*["deeper"] * 30)


def with_umlauts(folder: Path) -> Path:
    """A path that is short enough for a socket in characters, and too long in bytes."""
    room = 99 - len(str(folder / "x" / "redis.sock"))
    return folder / ("ö" * room)


@pytest.mark.parametrize("make", [deeper, with_umlauts])
def test_a_state_folder_s_path_may_be_longer_than_a_socket_s(short_folder: Path, make: Callable[[Path], Path]) -> None:
    folder = make(short_folder)
    assert len(os.fsencode(folder / "redis.sock")) > 108
    try:
        with embedded_redis(folder) as embedded:
            ask(embedded.url, "SET", "accepted", "an evaluation")
        with embedded_redis(folder) as embedded:
            assert ask(embedded.url, "GET", "accepted") == "an evaluation"
    finally:
        until(lambda: has_no_users(folder))
        remove_short_path_of(folder)


def remove_short_path_of(folder: Path) -> None:
    short = socket_path(folder).parent
    if short != folder:
        with contextlib.suppress(FileNotFoundError):
            short.rmdir()


def test_two_deep_state_folders_have_sockets_of_their_own(tmp_path: Path) -> None:
    folders = [tmp_path / ("deeper/" * 30) / name for name in ("one", "two")]
    first, second = map(socket_path, folders)
    assert first != second
    assert first == socket_path(folders[0])
    assert first.parent.parent == Path(tempfile.gettempdir())
    assert first.parent.stat().st_mode & 0o777 == 0o700
    for folder in folders:
        remove_short_path_of(folder)


def test_a_short_path_that_belongs_to_somebody_else_is_not_used(tmp_path: Path) -> None:
    """Its name can be foretold: whoever made the folder before us could put a socket of their own there."""
    deep = tmp_path / f"{uuid4()}" / ("deeper/" * 30)
    short = socket_path(deep).parent
    short.chmod(0o777)
    try:
        with pytest.raises(EmbeddedError), embedded_redis(deep):
            pass
    finally:
        (short / "redis.sock").unlink(missing_ok=True)
        short.rmdir()


def test_a_state_folder_that_cannot_be_made_is_one_clear_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EmbeddedError, match="state directory cannot be used"), embedded_redis(tmp_path / "file"):
        pass


def test_a_server_that_does_not_start_is_told_with_the_place_to_look_at(state_dir: Path) -> None:
    state_dir.mkdir()
    (state_dir / "appendonlydir").write_text("no folder")
    with pytest.raises(EmbeddedError, match=r"does not start: see .*redis\.log"), embedded_redis(state_dir):
        pass
    until(lambda: has_no_users(state_dir))


def test_a_keeper_whose_server_does_not_start_ends_at_once(state_dir: Path) -> None:
    """Or whoever waits for the server waits for the whole of its patience."""
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
        keeper = subprocess.Popen(command)
        try:
            keeper.wait(10)
        finally:
            keeper.kill()
            keeper.wait()


def test_there_is_a_server_to_start() -> None:
    assert Path(server_binary()).is_file()
