"""Run other S3 servers; as a program, run the tests of S3 on LocalStack, and check that rclone is refused.

`make stores` makes the environment with these servers. Nothing else needs it.
"""

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

_ROOT = Path(__file__).parents[1]
PROGRAMS = _ROOT / ".venv-stores" / "bin"
_START_SECONDS = 120.0
_LOCALSTACK = {
    "ACTIVATE_PRO": "0",
    "DISABLE_EVENTS": "1",
    "DNS_ADDRESS": "0",
    "GATEWAY_SERVER": "hypercorn",
    "SERVICES": "s3,sts,kms",
    "SKIP_SSL_CERT_DOWNLOAD": "1",
    "STRICT_SERVICE_LOADING": "1",
}
_SUITE = (
    *("tests/tasks/storage", "tests/tasks/pipeline/test_upload.py", "tests/tasks/pipeline/test_upload_sealed.py"),
    *("tests/worker/clients", "tests/scripts/doctor/test_bucket.py", "tests/scripts/erase", "tests/scripts/ids"),
    *("tests/scripts/verify", "tests/scripts/audit"),
)
_NOT_ON_LOCALSTACK = (
    "tests/scripts/verify/test_s3_objects.py::test_objects_are_listed_in_order_without_those_of_other_prefixes"
)
"""LocalStack omits a key that is not ASCII from the second page of a listing."""


@contextlib.contextmanager
def localstack() -> Iterator[str]:
    """Run LocalStack until the block ends; yield its URL."""
    address = _free_address()
    with _running(
        [PROGRAMS / "python", "-m", "localstack.runtime.main"], address, _LOCALSTACK | {"GATEWAY_LISTEN": address}
    ):
        yield f"http://{address}"


@contextlib.contextmanager
def rclone(bucket: str) -> Iterator[str]:
    """Run `rclone serve s3` with a bucket until the block ends; yield its URL."""
    address = _free_address()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / bucket).mkdir()
        with _running([PROGRAMS / "rclone", "serve", "s3", folder, "--addr", address], address, {}):
            yield f"http://{address}"


def _free_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return "{}:{}".format(*server.getsockname())


@contextlib.contextmanager
def _running(command: list[Path | str], address: str, variables: Mapping[str, str]) -> Iterator[None]:
    with tempfile.TemporaryDirectory() as home:
        environment = {"PATH": os.environ["PATH"], "HOME": home, "TMPDIR": home, **variables}
        with subprocess.Popen(command, cwd=home, env=environment, stdout=subprocess.DEVNULL) as server:
            try:
                _wait_for(server, address)
                yield
            finally:
                server.terminate()


def _wait_for(server: subprocess.Popen[bytes], address: str) -> None:
    host, _, port = address.partition(":")
    until = time.monotonic() + _START_SECONDS
    while server.poll() is None and time.monotonic() < until:
        with contextlib.suppress(OSError), socket.create_connection((host, int(port))):
            return
        time.sleep(0.2)
    raise RuntimeError(f"{server.args!r} does not listen")


def main() -> int:
    """Run both; return 0 if all tests pass."""
    pytest = [sys.executable, "-m", "pytest", "-q", "-n0", "--timeout=600"]
    with localstack() as url:
        chosen = [f"--s3={url}", f"--deselect={_NOT_ON_LOCALSTACK}", *_SUITE]
        suite = subprocess.run([*pytest, *chosen], cwd=_ROOT, check=False)
    refusal = subprocess.run([*pytest, "tests/test_stores.py"], cwd=_ROOT, check=False)
    return max(suite.returncode, refusal.returncode)


if __name__ == "__main__":
    sys.exit(main())
