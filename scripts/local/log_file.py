"""Keep the log of a local worker from growing without end."""

import contextlib
import itertools
import shutil
from pathlib import Path

LOG_BYTES = 10_000_000
KEPT = 4


def rotate_log(log: Path) -> None:
    """Move what a log holds to ``….1``, and the older ones on to ``….4``, once it has reached ``LOG_BYTES``.

    The worker goes on with the file it has open, so its content is copied and the file is emptied.
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
    except OSError:  # a full disk: a log that is lost is better than one that keeps it full
        names[0].unlink(missing_ok=True)
    with log.open("r+b") as file:
        file.truncate()
