"""What a session of processes has used: processor time and memory, as Linux counts them."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_KIB = 1024


def cpu_of(leader: int) -> float:
    """Return the seconds of processor time of a session's processes, those that have ended included."""
    return sum(sum(map(int, fields[11:15])) for _, fields in _session(leader)) / _TICKS


def memory_of(leader: int) -> int:
    """Return the bytes that a session's processes hold just now; what they share is counted once."""
    return sum(_field(path / "smaps_rollup", "Pss") for path, _ in _session(leader))


def peak_of(leader: int) -> int:
    """Return the bytes that the process alone held at its highest."""
    return _field(Path(f"/proc/{leader}/status"), "VmHWM")


def now_of(leader: int) -> int:
    """Return the bytes that the process alone holds just now."""
    return _field(Path(f"/proc/{leader}/status"), "VmRSS")


def _field(path: Path, name: str) -> int:
    with contextlib.suppress(OSError):
        for line in path.read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * _KIB
    return 0


def _session(leader: int) -> Iterator[tuple[Path, list[str]]]:
    """Yield each process of a session, with its figures: the first is its state."""
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            fields = (path / "stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) == leader:
                yield path, fields
