"""Write the bad lines of a list to a CSV that is safe to open in a spreadsheet."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Self

from scripts.console.csv_output import BYTE_ORDER_MARK, write_row
from tasks.errors import BadEvalId
from worker.clients.errors import ServiceUnavailable


class Rejects:
    """A file with a row for each bad line: ``line``, ``why``, ``text``; created with the first one, for its owner only.

    Attributes:
        count: the number of bad lines so far.

    Raises:
        ServiceUnavailable: it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[str] | None = None
        self.count = 0

    @property
    def path(self) -> Path | None:
        """The path of the file; None until there is one."""
        return self._path if self.count else None

    def __enter__(self) -> Self:
        """Remove the file of an earlier run."""
        with self._translated():
            self._path.unlink(missing_ok=True)
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            with self._translated():
                self._file.close()

    def add(self, line: int, error: BadEvalId) -> None:
        """Write a bad line."""
        with self._translated():
            if self._file is None:
                self._file = self._open_file()
            write_row(self._file, (line, error.why, error.shown))
        self.count += 1

    def _open_file(self) -> IO[str]:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = open(self._path, "x", encoding="utf-8", newline="", opener=partial(os.open, mode=0o600))  # noqa: SIM115
        file.write(BYTE_ORDER_MARK)
        write_row(file, ("line", "why", "text"))
        return file

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ServiceUnavailable(
                f"{self._path}: the invalid lines cannot be written there: {error.strerror}"
            ) from None
