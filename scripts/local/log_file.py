"""Keep the log of a local worker from growing without end."""

import contextlib
import itertools
import shutil
from pathlib import Path

LOG_BYTES = 10_000_000
KEPT = 4


def rotate_log(log: Path) -> None:
    """Move the content of a log to ``….1``, and shift older ones up to ``….4``, once it has reached ``LOG_BYTES``.

    The worker keeps writing to its open file, so the content is copied and the file is emptied.
    """
    if not log.is_file() or log.stat().st_size < LOG_BYTES:
        return
    names = [log.with_name(f"{log.name}.{number}") for number in range(1, KEPT + 1)]
    for newer, older in reversed([*itertools.pairwise(names)]):
        with contextlib.suppress(FileNotFoundError):
            newer.replace(older)
    try:
        names[0].touch(mode=0o600)
        shutil.copyfile(log, names[0])
    except OSError:  # the disk is full: better to lose a log than to keep the disk full
        names[0].unlink(missing_ok=True)
    with log.open("r+b") as file:
        file.truncate()
