"""The resources that the processes of a session have used, as Linux counts them."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_TICKS = os.sysconf("SC_CLK_TCK")
_KIB = 1024


@dataclass(frozen=True, slots=True)
class Usage:
    """Resources that processes have used so far.

    Attributes:
        cpu_seconds: processor time.
        page_faults: those that needed no disk (``ru_minflt``).
        disk_bytes: written to files on a disk, whether or not they reached it before they were deleted.
    """

    cpu_seconds: float = 0.0
    page_faults: int = 0
    disk_bytes: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            self.cpu_seconds + other.cpu_seconds,
            self.page_faults + other.page_faults,
            self.disk_bytes + other.disk_bytes,
        )

    def __sub__(self, other: "Usage") -> "Usage":
        return self + Usage(-other.cpu_seconds, -other.page_faults, -other.disk_bytes)


def measure_usage(leader: int) -> Usage:
    """Return the usage of the processes of a session, including processor time and faults of those that ended."""
    used = Usage()
    for path, fields in _session(leader):
        used += Usage(
            sum(map(int, fields[11:15])) / _TICKS,
            int(fields[7]) + int(fields[8]),
            _read_number(path / "io", "write_bytes"),
        )
    return used


def peak_bytes(leader: int) -> int:
    """Return the peak memory of each process of a session, added up; shared memory counts for each of them."""
    return sum(_read_number(path / "status", "VmHWM") * _KIB for path, _ in _session(leader))


def reset_peak(leader: int) -> None:
    """Reset the peak memory of each process of a session to its current memory (``clear_refs`` in ``man 5 proc``)."""
    for path, _ in _session(leader):
        (path / "clear_refs").write_text("5")


def memory_bytes(leader: int) -> int:
    """Return the memory that a process uses now."""
    return _read_number(Path(f"/proc/{leader}/status"), "VmRSS") * _KIB


def counts_writes(folder: Path) -> bool:
    """Return whether Linux counts bytes that are written to files in a folder: not if they stay in memory (tmpfs)."""
    itself = Path("/proc/self/io")
    before, probe = _read_number(itself, "write_bytes"), folder / "probe"
    probe.write_bytes(bytes(PAGE_BYTES))
    probe.unlink()
    return _read_number(itself, "write_bytes") > before


def _read_number(path: Path, name: str) -> int:
    """Return the number of a line ``name: number`` in a file of /proc; 0 if the process ended."""
    with contextlib.suppress(OSError):
        for line in path.read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1])
    return 0


def _session(leader: int) -> Iterator[tuple[Path, list[str]]]:
    """Yield the folder in /proc of each process of a session, and the fields of its ``stat`` from the state on."""
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            fields = (path / "stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) == leader:
                yield path, fields
