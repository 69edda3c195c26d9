"""Run the simulator as a process, for benches that need its neighbour rather than the speed of the stand-in."""

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
    """A running simulator.

    Attributes:
        url: its base URL.
    """

    url: str

    def stats(self) -> Stats:
        """Return its statistics."""
        with urllib.request.urlopen(f"{self.url}/__stats?eval_id=none") as response:  # noqa: S310  # our own URL
            found: Stats = json.load(response)
        return found

    def change(self, **changes: object) -> None:
        """Change its behaviour."""
        data = json.dumps(changes).encode()
        urllib.request.urlopen(f"{self.url}/__control", data).close()  # noqa: S310  # our own URL


@contextlib.contextmanager
def simulated_riskos(folder: Path, *options: str) -> Iterator[SimulatedRiskos]:
    """Run a simulator that accepts the key of the benches, until the block ends."""
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(_ROOT), "PYTHONUNBUFFERED": "1"}
    arguments = ["scripts.cli", "simulate", "--port", "0", "--key", KEY, *options]
    with started(arguments, environment, folder, stdout=subprocess.PIPE) as process:
        assert process.stdout  # opened above as a pipe
        yield SimulatedRiskos(process.stdout.readline().decode().split()[-1])
