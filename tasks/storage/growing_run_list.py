"""Store the list of a run whose evaluations `run` or `enqueue --run` queued directly; `report` reads it."""

import hashlib
from collections.abc import Iterable, Sequence

from tasks.errors import ManifestChanged
from tasks.model.job import EnqueueOptions
from tasks.storage.bucket import Bucket, ObjectAttributes, WriteUnconfirmed
from tasks.storage.manifest import archiver, utc_now
from tasks.storage.run_list import (
    CHUNK_SIZE,
    RunList,
    RunSource,
    list_key,
    parse_list,
    read_chunk,
    store_chunk,
)

_ATTEMPTS = 5


async def extend_run_list(
    bucket: Bucket,
    eval_ids: Sequence[str],
    *,
    run: str,
    environment: str,
    order: EnqueueOptions,
    source: str,
    by: str | None = None,
) -> RunList:
    """Add evaluations, each once, to the list of a run that queued them directly; return the list.

    Args:
        order: options of the run, taken from its first evaluations.
        source: source of the first evaluations.
        by: operator that ordered them. This name, which a receipt of an erasure also has, is the only personal data.

    Raises:
        IntegrityError: the list is damaged.
        ManifestChanged: other processes changed the list at every try.
        StorageError: the list may not have been written.
    """
    key = list_key(environment, run)
    for _ in range(_ATTEMPTS):
        found = await bucket.read(key)
        known = parse_list(run, found.data) if found else None
        before = [each for piece in (known.pieces if known else ()) for each in await read_chunk(bucket, piece)]
        all_ids = dict.fromkeys([*before, *eval_ids])
        added = tuple(all_ids)[len(before) :]
        if known and not added:
            return known
        pieces = [
            await store_chunk(bucket, environment, run, added[start : start + CHUNK_SIZE])
            for start in range(0, len(added), CHUNK_SIZE)
        ]
        made = known or _make_unfed_list(run, environment, order, source, by)
        counted = made.source.model_copy(update={"ids": len(all_ids), "fingerprint": _fingerprint(all_ids)})
        made = made.model_copy(update={"source": counted, "pieces": (*made.pieces, *pieces)})
        try:
            await bucket.replace(
                key, made.as_json(), ObjectAttributes("application/json"), found.etag if found else None
            )
        except (ManifestChanged, WriteUnconfirmed):
            continue
        return made
    raise ManifestChanged


def _make_unfed_list(run: str, environment: str, order: EnqueueOptions, source: str, by: str | None) -> RunList:
    return RunList(
        schema=1,
        run=run,
        environment=environment,
        account=order.account,
        refresh=order.refresh,
        even_if_erased=order.even_if_erased,
        refresh_outcomes=order.refresh_outcomes,
        source=RunSource(name=source, fingerprint=_fingerprint(()), ids=1, repeated=0, bad=0),
        pieces=(),
        begun_at=utc_now(),
        begun_by=by,
        archiver=archiver(),
    )


def _fingerprint(eval_ids: Iterable[str]) -> str:
    return hashlib.sha256(bytes.fromhex("".join(eval_ids).replace("-", ""))).hexdigest()
