"""Names for documents that every disk takes, as close as can be to those they had in the bundle.

A name out of a bundle is a stranger's: it may climb, hide, name a device, or be another one for somebody else's disk.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator
from itertools import count

from tasks.bundle.media_type import media_type_named

_LONGEST = 60
"""Characters in one part; in any script and form few enough for the 255 bytes or units that disks allow."""
_DEEPEST = 4
# What Windows forbids, and what BagIt (RFC 8493, 2.1.3) would want to see encoded.
_RESERVED = frozenset('<>:"|?*%')
# Hidden files, options of commands, formulas of spreadsheets.
_MISLEADING = frozenset(".-~=+@")
_DEVICE = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³]) *(\.|\Z)", re.IGNORECASE)


class UniqueNames:
    """The names given out in one folder; no two of them are the same on any disk.

    Args:
        taken: names of files that stand in the folder already.
    """

    def __init__(self, taken: Iterable[str]) -> None:
        self._files = set(map(_folded, taken))
        self._folders: set[str] = set()

    def give(self, name: str, media_type: str, extension: str) -> str:
        """Return a safe path for a document, relative and with ``/`` between its parts.

        Args:
            name: its name in the bundle.
            media_type: what its content is.
            extension: belongs to the media type.
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
    """Return what all spellings of a path have in common that some disk takes for the same."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", path).casefold())


def _safe(part: str, longest: int = _LONGEST) -> str:
    normal = unicodedata.normalize("NFC", part)
    clean = "".join("_" if char in _RESERVED or not char.isprintable() else char for char in normal).strip(" ")
    if clean[:1] in _MISLEADING or _DEVICE.match(clean):
        clean = "_" + clean
    return clean[:longest].rstrip(" .") or "_"


def _split(last: str, media_type: str, extension: str) -> tuple[str, str]:
    """Return stem and ending; the ending is the name's own where it says what the content is."""
    stem, _, own = last.rpartition(".")
    if stem and own.isascii() and (own == extension or media_type_named(own.lower()) == media_type):
        return stem, f".{own}"
    return last, f".{extension}"
