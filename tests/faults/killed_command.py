"""Run a command that is killed with SIGKILL just before one of its calls to an archive in a folder.

The environment names the call: KILL_FOLDER is the archive, and KILL_AT the number of the call. A byte is written to the
file KILL_COUNT for each call.
"""

import itertools
import os
import runpy
import signal
import sys

_WRITES = frozenset({"os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir"})
_READS = frozenset({"open", "os.listdir", "os.scandir"})


def kill_at(call: int, folder: str, count: int) -> None:
    """Count each call of this process to a folder, and kill the process before one of them.

    Args:
        place: number of the call, from 1; 0 for none.
        count: descriptor of a file to which a byte is written for each call.
    """
    numbers = itertools.count(1)

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        # The paths of writes are relative to a descriptor, so all writes count; few of them are in other folders.
        is_read = event in _READS and str(arguments[0]).startswith(folder)
        if event in _WRITES or is_read:
            if next(numbers) == call:
                os.kill(os.getpid(), signal.SIGKILL)
            os.write(count, b".")

    sys.addaudithook(watch)


if __name__ == "__main__":
    file = os.open(os.environ.pop("KILL_COUNT"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    kill_at(int(os.environ.pop("KILL_AT")), os.environ.pop("KILL_FOLDER"), file)
    runpy.run_module("scripts.cli", run_name="__main__", alter_sys=True)
