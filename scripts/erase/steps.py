"""The two steps of a request, before and after the wait for workers: for a whole evaluation, or for some kinds."""

from collections.abc import Sequence

from scripts.erase.duties import Waiting
from scripts.erase.erasure import (
    BegunErasure,
    Erased,
    ErasureRefused,
    ErasureStores,
    NotFound,
    WouldErase,
    begin_erasure,
    finish_erasure,
)
from scripts.erase.kinds import begin_kinds, finish_kinds
from scripts.erase.receipt import ErasureRequest
from scripts.erase.stock import NotRemoved
from tasks.errors import IntegrityError, ManifestChanged
from tasks.model.evaluation import Evaluation

EVALUATION_ERRORS = (IntegrityError, ManifestChanged, NotRemoved)
"""The errors that prevent the erasure of one evaluation, and of no other one."""


async def begin_request(
    evaluation: Evaluation, request: ErasureRequest, stores: ErasureStores, *, dry_run: bool = False
) -> BegunErasure | WouldErase | ErasureRefused | NotFound | Waiting:
    """Begin the erasure that a request asks for; returns and raises as ``begin_erasure`` and ``begin_kinds``."""
    begin = begin_kinds if request.kinds else begin_erasure
    return await begin(evaluation, request, stores, dry_run=dry_run)


async def finish_request(
    begun: BegunErasure, stores: ErasureStores, mentions: Sequence[str] = ()
) -> Erased | ErasureRefused:
    """Complete an erasure after the wait; raises as ``begin_request``.

    Args:
        mentions: places outside the archive where the ID of a whole evaluation may remain.
    """
    if begun.request.kinds:
        return await finish_kinds(begun, stores)
    return await finish_erasure(begun, stores, mentions)
