"""Our own simulator as a process, where a bench needs its neighbour and not the speed of the stand-in."""

import contextlib
import json
import os
import subprocess
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.environment import started
from tests.bench.peers.place import KEY

Stats = Mapping[str, Any]
_ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class SimulatedRiskos:
    """A simulator that listens.

    Attributes:
        url: its base URL.
    """

    url: str

    def stats(self) -> Stats:
        """Return its figures."""
        with urllib.request.urlopen(f"{self.url}/__stats?eval_id=none") as response:  # noqa: S310  # our own URL
            found: Stats = json.load(response)
        return found

    def change(self, **changes: object) -> None:
        """Change how it behaves."""
        data = json.dumps(changes).encode()
        urllib.request.urlopen(f"{self.url}/__control", data).close()  # noqa: S310  # our own URL


@contextlib.contextmanager
def simulated_riskos(folder: Path, *options: str) -> Iterator[SimulatedRiskos]:
    """Have a simulator that accepts the key of the benches for as long as the block lasts."""
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(_ROOT), "PYTHONUNBUFFERED": "1"}
    arguments = ["scripts.cli", "simulate", "--port", "0", "--key", KEY, *options]
    with started(arguments, environment, folder, stdout=subprocess.PIPE) as process:
        assert process.stdout  # it was asked for
        yield SimulatedRiskos(process.stdout.readline().decode().split()[-1])
