"""Bundles: an evaluation's documents, and the ZIP that holds them.

The same evaluation always gives the same bytes, so a test may ask here what RiskOS answered.
"""

import io
import zipfile
from collections.abc import Mapping
from functools import lru_cache

from scripts.simulator.layouts import documents_in
from scripts.simulator.scenarios import Scenario, scenario_of

DEFAULT_IMAGE_BYTES = 24_000
"""About the size of each JPEG where nothing else is asked for."""

_A_FIXED_DAY = (2025, 6, 15, 12, 0, 0)
# Only evaluations that are asked for again at once profit, so a few are enough; with pictures of
# several megabytes each more of them would be a burden.
_KEPT = 32


def documents_of(eval_id: str, image_bytes: int = DEFAULT_IMAGE_BYTES, *, changed: bool = False) -> dict[str, bytes]:
    """Return the documents of an evaluation: the name in the bundle and the content.

    Args:
        eval_id: canonical UUID in lower case.
        image_bytes: about the size of each JPEG.
        changed: whether an attachment was added since the evaluation was completed.
    """
    return documents_in(scenario_of(eval_id), eval_id, image_bytes, changed=changed)


@lru_cache(maxsize=_KEPT)
def bundle_of(eval_id: str, image_bytes: int = DEFAULT_IMAGE_BYTES, *, changed: bool = False) -> bytes:
    """Return the sound bundle of an evaluation; the arguments are those of ``documents_of``."""
    documents = documents_of(eval_id, image_bytes, changed=changed)
    scenario = scenario_of(eval_id)
    if scenario is Scenario.FOLDER_ENTRIES:
        documents = _folders_of(documents) | documents
    if scenario is Scenario.STREAMED:
        return _streamed(documents)
    return zip_of(documents, compressed=scenario is not Scenario.STORED)


def zip_of(documents: Mapping[str, bytes], *, compressed: bool = True) -> bytes:
    """Return a ZIP of some documents, without anything in it that changes from day to day."""
    file = io.BytesIO()
    _write(file, documents, compressed=compressed)
    return file.getvalue()


class _Pipe(io.RawIOBase):
    """A file that cannot go back, like a socket: ``zipfile`` then writes data descriptors."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self.sent += data
        return len(data)


def _streamed(documents: dict[str, bytes]) -> bytes:
    pipe = _Pipe()
    _write(pipe, documents, compressed=True)
    return bytes(pipe.sent)


def _write(file: io.BytesIO | _Pipe, documents: Mapping[str, bytes], *, compressed: bool) -> None:
    method = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in documents.items():
            member = zipfile.ZipInfo(name, _A_FIXED_DAY)
            # Pictures hardly shrink: the quickest level is as good as the best.
            archive.writestr(member, content, method, compresslevel=1)


def _folders_of(documents: dict[str, bytes]) -> dict[str, bytes]:
    folders = {name.rpartition("/")[0] + "/" for name in documents}
    return dict.fromkeys(sorted(folders), b"")
