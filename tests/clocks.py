"""Set the clock of a running program with libfaketime; other programs keep theirs.

The monotonic clock does not change, as on a machine whose wall clock is set.
"""

import subprocess
from pathlib import Path

_SHARED = Path("/dev/shm")  # noqa: S108  # where Linux keeps shared memory
_TRIES = 5
_LIBRARY = ("faketime", "-m", "-f", "+0", "sh", "-c", "echo $LD_PRELOAD")


class MovableClock:
    """The clock of the programs that are started with its environment.

    Args:
        file: holds the seconds by which the clock is ahead.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self.move(0)
        library = _find_library()
        self.environment = {
            "LD_PRELOAD": library,
            "FAKETIME_TIMESTAMP_FILE": str(file),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "PYTHONFAULTHANDLER": "1",
        }

    def move(self, seconds: float) -> None:
        """Set the clock ahead of the real time, or behind it; programs notice within a second."""
        # Replaced atomically: a program that reads a half-written file gets a random time.
        new = self._file.with_suffix(".new")
        new.write_text(f"{seconds:+g}")
        new.replace(self._file)


def remove_shared_memory(process_id: int) -> None:
    """Remove the shared memory of a killed process; with libfaketime, another one with the same ID would crash."""
    for name in (f"faketime_shm_{process_id}", f"sem.faketime_sem_{process_id}"):
        (_SHARED / name).unlink(missing_ok=True)


def _find_library() -> str:
    """Return the path of libfaketime; retry, because faketime itself fails if it gets the ID of a killed process."""
    for _ in range(_TRIES):
        found = subprocess.run(_LIBRARY, capture_output=True, check=False, text=True)
        if found.returncode == 0:
            return found.stdout.strip()
    raise RuntimeError(found.stderr)
