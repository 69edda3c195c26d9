from pathlib import Path
from uuid import UUID

import pytest

from tasks.errors import ManifestChanged
from tasks.model.job import EnqueueOptions, Queue, Trigger
from tasks.storage import growing_run_list
from tasks.storage.bucket import ObjectAttributes
from tasks.storage.growing_run_list import extend_run_list
from tasks.storage.local_bucket import LocalBucket
from tasks.storage.run_list import RunList, find_run_list, read_chunk

IDS = [str(UUID(int=n, version=4)) for n in range(10)]
ORDER = EnqueueOptions(Queue.LIVE, "kyb", Trigger("enqueue", run="q3"), refresh=True)


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalBucket:
    monkeypatch.setattr(growing_run_list, "CHUNK_SIZE", 4)
    return LocalBucket(tmp_path)


async def extend(bucket: LocalBucket, eval_ids: list[str], source: str = "ids.txt") -> RunList:
    return await extend_run_list(bucket, eval_ids, run="q3", environment="sandbox", order=ORDER, source=source)


async def read_ids(bucket: LocalBucket, known: RunList) -> list[str]:
    return [eval_id for piece in known.pieces for eval_id in await read_chunk(bucket, piece)]


async def test_evaluations_added_later_follow_the_first_ones_and_each_is_listed_once(
    bucket: LocalBucket,
) -> None:
    first = await extend(bucket, IDS[:6])
    assert (first.account, first.refresh, first.source.name, first.source.ids) == ("kyb", True, "ids.txt", 6)
    assert [piece.ids for piece in first.pieces] == [4, 2]
    second = await extend(bucket, [*IDS[4:], IDS[4]], "more.txt")
    assert (await read_ids(bucket, second), second.source.ids, second.source.name) == (IDS, 10, "ids.txt")
    assert await extend(bucket, IDS[3:5]) == second
    assert await find_run_list(bucket, "q3", second.fingerprint, "sandbox") == second


async def test_two_concurrent_orders_are_both_in_the_list(bucket: LocalBucket, monkeypatch: pytest.MonkeyPatch) -> None:
    replace, other_orders = LocalBucket.replace, [IDS[:5]]

    async def replace_late(
        self: LocalBucket, key: str, data: bytes, attributes: ObjectAttributes, etag: str | None
    ) -> object:
        if other_orders:
            await extend(bucket, other_orders.pop())
        return await replace(self, key, data, attributes, etag)

    monkeypatch.setattr(LocalBucket, "replace", replace_late)
    known = await extend(bucket, IDS[5:])
    assert await read_ids(bucket, known) == IDS


async def test_extend_run_list_raises_when_the_list_changes_at_each_try(
    bucket: LocalBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: object) -> object:
        raise ManifestChanged

    monkeypatch.setattr(LocalBucket, "replace", refuse)
    with pytest.raises(ManifestChanged):
        await extend(bucket, IDS)
