"""File names that every file system accepts, as close as possible to the names in the bundle.

A name in a bundle is not trusted: it may have `..`, be hidden, name a device, or collide with another on some disks.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator
from itertools import count

from scripts.archive_access.extensions import may_keep
from scripts.console.csv_output import make_inert

_LONGEST = 60
"""Characters in one part of a path; in every script and Unicode form they fit into the 255 bytes of file systems."""
_DEEPEST = 4
# Forbidden on Windows, encoded by BagIt (RFC 8493, 2.1.3), or the end of a cell in some spreadsheets.
_RESERVED = frozenset('<>:"|?*%;')
# The beginning of hidden files, options of commands, and formulas of spreadsheets.
_MISLEADING = frozenset(".-~")
_DEVICE = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³]) *(\.|\Z)", re.IGNORECASE)


class UniqueNames:
    """The names that are used in one folder; no two of them are the same name on any file system.

    Args:
        taken: names of files that are in the folder already.
    """

    def __init__(self, taken: Iterable[str]) -> None:
        self._files = set(map(_folded, taken))
        self._folders: set[str] = set()

    def allocate(self, name: str, media_type: str, extension: str) -> str:
        """Return a safe path for a document, relative and with ``/`` between its parts.

        Args:
            name: its name in the bundle.
            media_type: media type of its content.
            extension: used if the name must not keep its own.
        """
        parts = [part for part in name.replace("\\", "/").split("/") if part.strip(" .")]
        *folders, last = parts[-_DEEPEST - 1 :] or ["document"]
        where = ""
        for folder in folders:
            where = self._folder(where + _safe(folder)) + "/"
        stem, ending = _split(last, media_type, extension)
        return self._file(where + _safe(stem, _LONGEST - len(ending)), ending)

    def _folder(self, path: str) -> str:
        free = next(each for each in _numbered(path, "") if _folded(each) not in self._files)
        self._folders.add(_folded(free))
        return free

    def _file(self, path: str, ending: str) -> str:
        free = next(each for each in _numbered(path, ending) if not self._is_taken(_folded(each)))
        self._files.add(_folded(free))
        return free

    def _is_taken(self, folded: str) -> bool:
        return folded in self._files or folded in self._folders


def _numbered(path: str, ending: str) -> Iterator[str]:
    yield path + ending
    yield from (f"{path} ({number}){ending}" for number in count(2))


def _folded(path: str) -> str:
    """Return a form that is equal for all spellings of a path that some file system treats as the same."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", path).casefold())


def _safe(part: str, longest: int = _LONGEST) -> str:
    normal = unicodedata.normalize("NFC", part)
    clean = "".join("_" if char in _RESERVED or not char.isprintable() else char for char in normal).strip(" ")
    if clean[:1] in _MISLEADING or make_inert(clean) != clean or _DEVICE.match(clean):
        clean = "_" + clean
    return clean[:longest].rstrip(" .") or "_"


def _split(last: str, media_type: str, extension: str) -> tuple[str, str]:
    """Return stem and ending. The ending is the name's own if it fits the content or is harmless."""
    stem, _, own = last.rpartition(".")
    if stem and may_keep(own, media_type):
        return stem, f".{own}"
    return last, f".{extension}"
