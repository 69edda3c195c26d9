"""Bundles: an evaluation's documents, and the ZIP that holds them.

The same evaluation always gives the same bytes, so a test can compute what RiskOS answered.
"""

import io
import zipfile
from collections.abc import Mapping
from functools import lru_cache

from scripts.simulator.layouts import documents_in
from scripts.simulator.scenarios import Scenario, scenario_of

DEFAULT_IMAGE_BYTES = 24_000
"""Default approximate size of each JPEG."""

_A_FIXED_DAY = (2025, 6, 15, 12, 0, 0)
# A few are enough: only an immediate repetition of a request hits this cache. Bundles of several
# megabytes each would take much memory.
_KEPT = 32


def documents_of(eval_id: str, image_bytes: int = DEFAULT_IMAGE_BYTES, *, changed: bool = False) -> dict[str, bytes]:
    """Return the documents of an evaluation: the name in the bundle and the content.

    Args:
        eval_id: canonical UUID in lower case.
        image_bytes: approximate size of each JPEG.
        changed: whether an attachment was added since the evaluation was completed.
    """
    return documents_in(scenario_of(eval_id), eval_id, image_bytes, changed=changed)


@lru_cache(maxsize=_KEPT)
def bundle_of(eval_id: str, image_bytes: int = DEFAULT_IMAGE_BYTES, *, changed: bool = False) -> bytes:
    """Return the intact bundle of an evaluation; the arguments are those of ``documents_of``."""
    documents = documents_of(eval_id, image_bytes, changed=changed)
    scenario = scenario_of(eval_id)
    if scenario is Scenario.FOLDER_ENTRIES:
        folders = {name.rpartition("/")[0] + "/" for name in documents}
        documents = dict.fromkeys(sorted(folders), b"") | documents
    if scenario is Scenario.EMPTY_FILE:
        documents = documents | {"user_uploaded/document_verification/documentbackDoc_Back_2_blob.jpg": b""}
    if scenario is Scenario.STREAMED:
        return _write(_Pipe(), documents, compressed=True)
    return zip_of(documents, compressed=scenario is not Scenario.STORED)


def zip_of(documents: Mapping[str, bytes], *, compressed: bool = True) -> bytes:
    """Return a ZIP of some documents that is the same every time."""
    return _write(io.BytesIO(), documents, compressed=compressed)


class _Pipe(io.BytesIO):
    """A file that cannot seek, like a socket: ``zipfile`` then writes data descriptors."""

    def seek(self, *_: object) -> int:
        raise io.UnsupportedOperation


def _write(file: io.BytesIO, documents: Mapping[str, bytes], *, compressed: bool) -> bytes:
    method = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in documents.items():
            member = zipfile.ZipInfo(name, _A_FIXED_DAY)
            # Images hardly shrink, so the fastest level is good enough.
            archive.writestr(member, content, method, compresslevel=1)
    return file.getvalue()
