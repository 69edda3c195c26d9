"""Run a real RabbitMQ for tests."""

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

SERVER = "/usr/lib/rabbitmq/bin/rabbitmq-server"  # Debian's command of this name in the PATH runs only as root
RABBITMQ_PROGRAMS = (SERVER, "epmd")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextlib.contextmanager
def running_server(command: list[str], environment: dict[str, str], log: Path) -> Iterator[None]:
    """Run a server until the block ends, then kill its whole process group."""
    with (
        log.open("w") as output,
        subprocess.Popen(command, env=environment, stdout=output, stderr=output, start_new_session=True) as server,
    ):
        try:
            yield
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGKILL)


def is_listening(port: int) -> bool:
    import amqp  # noqa: PLC0415  # for the few tests that have the server

    try:
        with amqp.Connection(f"127.0.0.1:{port}", connect_timeout=5):
            return True
    except OSError:
        return False


@pytest.fixture(scope="session")
def rabbitmq_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a RabbitMQ for these tests, with its own epmd, the name server of Erlang."""
    folder = tmp_path_factory.mktemp("rabbitmq")
    port, names = free_port(), free_port()
    (folder / "rabbitmq.conf").write_text(f"listeners.tcp.1 = 127.0.0.1:{port}\n")
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "ERL_EPMD_PORT": str(names),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODENAME": "docv-test@localhost",
        "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq"),
        "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
        "RABBITMQ_LOG_BASE": str(folder / "log"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
        "RABBITMQ_DIST_PORT": str(free_port()),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1 -kernel inet_dist_use_interface {127,0,0,1}",
    }
    with (
        running_server(["epmd", "-port", str(names)], environment, folder / "epmd.log"),
        running_server([SERVER], environment, folder / "server.log"),
    ):
        deadline = time.monotonic() + 60
        while not is_listening(port):
            assert time.monotonic() < deadline, (folder / "server.log").read_text()
            time.sleep(0.2)
        yield f"amqp://guest:guest@127.0.0.1:{port}//"
