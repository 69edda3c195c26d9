"""The environment of a bench: two stand-ins, and the variables with which contestants find and trust them."""

import contextlib
import http.client
import json
import os
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench.certificate import write_certificate

_ROOT = Path(__file__).parents[2]
PEERS_PYTHON = _ROOT / ".venv-bench" / "bin" / "python"
"""Python of the environment that `make bench` makes for the peers."""
_POLL_SECONDS = 0.01
_STALLED_SECONDS = 60.0


@dataclass
class BenchEnvironment:
    """Two running stand-ins.

    Attributes:
        folder: for all files.
        riskos, s3: URLs of the stand-ins.
        authority: file of the authority that signed their certificates; None without TLS.
    """

    folder: Path
    riskos: str
    s3: str
    authority: Path | None
    _connections: dict[str, http.client.HTTPConnection] = field(default_factory=dict)

    def counts(self, url: str) -> dict[str, int]:
        """Return the counters of a stand-in."""
        return get_counts(self._connections.get(url) or self._connect(url))

    def archived(self) -> int:
        """Return how many manifests S3 has received."""
        return self.counts(self.s3).get("manifests", 0)

    def wait_until_archived(self, count: int) -> None:
        """Wait until S3 has received a number of manifests.

        Raises:
            TimeoutError: it has received none for a minute.
        """
        last, since = -1, time.monotonic()
        while (archived := self.archived()) < count:
            if archived != last:
                last, since = archived, time.monotonic()
            if time.monotonic() - since > _STALLED_SECONDS:
                raise TimeoutError(f"{archived} of {count} are archived, none in the last minute; see {self.folder}")
            time.sleep(_POLL_SECONDS)

    def environment(self) -> dict[str, str]:
        """Return the environment variables of each contestant."""
        trusted = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE") if self.authority else ()
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "PYTHONPATH": str(_ROOT),
            "BENCH_RISKOS": self.riskos,
            "BENCH_S3": self.s3,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        } | {name: str(self.authority) for name in trusted}

    def close(self) -> None:
        """Close the connections to the stand-ins."""
        for connection in self._connections.values():
            connection.close()

    def _connect(self, url: str) -> http.client.HTTPConnection:
        address = url.partition("://")[2]
        if self.authority:
            context = ssl.create_default_context(cafile=self.authority)
            self._connections[url] = http.client.HTTPSConnection(address, context=context)
        else:
            self._connections[url] = http.client.HTTPConnection(address)
        return self._connections[url]


def get_counts(connection: http.client.HTTPConnection) -> dict[str, int]:
    """Return the counters of the stand-in at the other end."""
    connection.request("GET", "/counts")
    counts: dict[str, int] = json.loads(connection.getresponse().read())
    return counts


@contextlib.contextmanager
def bench_environment(
    folder: Path, *, tls: bool, of_riskos: Sequence[str] = (), of_s3: Sequence[str] = ()
) -> Iterator[BenchEnvironment]:
    """Run both stand-ins until the block ends.

    Args:
        folder: for all files.
        tls: whether they use TLS.
        of_riskos, of_s3: options of each; see ``stand_in``.
    """
    authority, *certificate = write_certificate(folder)
    secured = ["--certificate", *map(str, certificate)] if tls else []
    with contextlib.ExitStack() as stack:
        ports = [
            stack.enter_context(stand_in(folder, [role, *options, *secured]))
            for role, options in (("riskos", of_riskos), ("s3", of_s3))
        ]
        riskos, s3 = (f"http{'s' * tls}://127.0.0.1:{port}" for port in ports)
        bench = BenchEnvironment(folder, riskos, s3, authority if tls else None)
        stack.callback(bench.close)
        yield bench


@contextlib.contextmanager
def stand_in(folder: Path, options: Sequence[str]) -> Iterator[int]:
    """Run a stand-in until the block ends; yield its port."""
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(_ROOT)}
    arguments = ["tests.bench.stand_in", *options]
    with started(arguments, environment, folder, stdout=subprocess.PIPE) as process:
        assert process.stdout  # opened above as a pipe
        yield int(process.stdout.readline())


@contextlib.contextmanager
def started(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    folder: Path,
    *,
    python: Path | str = sys.executable,
    stdout: int | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a module as a process, in its own session, until the block ends."""
    with (folder / f"{arguments[0]}.log").open("ab") as log:
        process: subprocess.Popen[bytes] = subprocess.Popen(
            [str(python), "-m", *arguments],
            env=dict(environment),
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=stdout or log,
            stderr=log,
            start_new_session=True,
        )
    with process:
        try:
            yield process
        finally:
            process.terminate()
            process.wait(60)
