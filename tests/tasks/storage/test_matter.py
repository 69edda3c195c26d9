"""Matters and their additions are records in the archive. Concurrent commands cannot contradict them."""

import asyncio
import gzip
from pathlib import Path
from unittest.mock import DEFAULT, patch

import pytest
from obstore.store import MemoryStore

from tasks.errors import BadMatterName, IntegrityError, ManifestChanged
from tasks.model.evaluation import Evaluation
from tasks.storage.bucket import Bucket, ObjectAttributes, S3Bucket
from tasks.storage.local_bucket import LocalBucket
from tasks.storage.matter import (
    MatterState,
    begin_release,
    complete_release,
    create_matter,
    find_recorded_matters,
    list_matters,
    read_additions,
    read_matter,
    record_addition,
)
from tests.archives import eval_ids

LABELS = ObjectAttributes("application/json")


@pytest.fixture(params=["folder", "memory"])
def bucket(request: pytest.FixtureRequest, tmp_path: Path) -> Bucket:
    return LocalBucket(tmp_path / "archive") if request.param == "folder" else S3Bucket(MemoryStore())


async def overwrite(bucket: Bucket, key: str, data: bytes) -> None:
    found = await bucket.read(key)
    await bucket.replace(key, data, LABELS, found.etag if found else None)


async def test_create_matter_returns_the_existing_record_of_that_name(bucket: Bucket) -> None:
    first = await create_matter(bucket, "acme-v-bolt", "case 17", "operator")
    assert await create_matter(bucket, "acme-v-bolt", "another", "another") == first
    assert await read_matter(bucket, "acme-v-bolt") == first
    assert (first.reason, first.created_by, first.state) == ("case 17", "operator", MatterState.OPEN)
    assert await read_matter(bucket, "other") is None


async def test_a_release_is_begun_once_and_then_completed(bucket: Bucket) -> None:
    await create_matter(bucket, "acme-v-bolt", "case 17", "operator")
    begun = await begin_release(bucket, "acme-v-bolt", "settled", "counsel")
    assert begun
    assert (begun.state, begun.released_by, begun.release_reason) == (MatterState.RELEASING, "counsel", "settled")
    assert await begin_release(bucket, "acme-v-bolt", "another", "another") == begun

    released = await complete_release(bucket, "acme-v-bolt")
    assert released
    assert released.state is MatterState.RELEASED
    assert await complete_release(bucket, "acme-v-bolt") == released
    assert await begin_release(bucket, "other", "settled", "counsel") is None


async def test_a_release_retries_when_the_record_changed_and_raises_when_it_changes_each_time(bucket: Bucket) -> None:
    await create_matter(bucket, "acme-v-bolt", "case 17", "operator")
    with patch.object(bucket, "replace", side_effect=[ManifestChanged(), DEFAULT], wraps=bucket.replace):
        assert await begin_release(bucket, "acme-v-bolt", "settled", "counsel")
    with (
        patch.object(bucket, "replace", side_effect=ManifestChanged()),
        pytest.raises(ManifestChanged),
    ):
        await complete_release(bucket, "acme-v-bolt")


async def test_the_record_of_a_matter_keeps_fields_of_a_newer_release(bucket: Bucket) -> None:
    await create_matter(bucket, "acme-v-bolt", "case 17", "operator")
    found = await bucket.read("holds/acme-v-bolt/matter.json")
    assert found
    await overwrite(bucket, "holds/acme-v-bolt/matter.json", found.data.replace(b"{", b'{"court": "north",', 1))
    await begin_release(bucket, "acme-v-bolt", "settled", "counsel")
    after = await bucket.read("holds/acme-v-bolt/matter.json")
    assert after
    assert b'"court": "north"' in after.data or b'"court":"north"' in after.data


async def test_additions_are_read_in_order_for_each_environment(bucket: Bucket) -> None:
    ids = eval_ids(5)
    for some in (ids[:2], ids[2:4]):
        await record_addition(bucket, "acme-v-bolt", "production", some, "operator")
    await record_addition(bucket, "acme-v-bolt", "sandbox", ids[4:], "another")
    production = [each async for each in read_additions(bucket, "acme-v-bolt", "production")]
    assert [list(each.eval_ids) for each in production] == [ids[:2], ids[2:4]]
    (sandbox,) = [each async for each in read_additions(bucket, "acme-v-bolt", "sandbox")]
    assert (sandbox.added_by, sandbox.eval_ids) == ("another", (ids[4],))


async def test_list_matters_ignores_keys_that_are_not_records_of_a_matter(bucket: Bucket) -> None:
    for name in ("b", "a"):
        await create_matter(bucket, name, "case 17", "operator")
    await record_addition(bucket, "a", "production", eval_ids(1), "operator")
    for key in ("holds/Upper/matter.json", "holds/a/other/matter.json", "holds/matter.json"):
        await bucket.create(key, b"{}", LABELS)
    assert [each.matter async for each in list_matters(bucket)] == ["a", "b"]


async def test_find_recorded_matters_returns_only_matters_that_are_not_released(bucket: Bucket) -> None:
    eval_id, other = eval_ids(2)
    for name in ("open", "releasing", "released", "elsewhere", "of-another"):
        await create_matter(bucket, name, "case 17", "operator")
        environment = "sandbox" if name == "elsewhere" else "production"
        added = [other] if name == "of-another" else [other, eval_id]
        await record_addition(bucket, name, environment, added, "operator")
    for name in ("releasing", "released"):
        await begin_release(bucket, name, "settled", "counsel")
    await complete_release(bucket, "released")
    assert await find_recorded_matters(bucket, Evaluation(eval_id, "production")) == ("open", "releasing")


@pytest.mark.parametrize("data", [b"no gzip", gzip.compress(b"{}", mtime=0), gzip.compress(b"x" * (2 << 20), mtime=0)])
async def test_a_damaged_addition_is_an_integrity_error(bucket: Bucket, data: bytes) -> None:
    await bucket.create("holds/a/additions/production/1.json.gz", data, LABELS)
    with pytest.raises(IntegrityError, match="an addition to matter a is damaged"):
        [each async for each in read_additions(bucket, "a", "production")]


@pytest.mark.parametrize("change", [("environment", "sandbox"), ("matter", "b"), ("eval_ids", ("../../x",))])
async def test_an_addition_that_does_not_match_its_key_is_an_integrity_error(
    bucket: Bucket, change: tuple[str, object]
) -> None:
    record = await record_addition(bucket, "b", "production", eval_ids(1), "operator")
    changed = record.model_copy(update={"matter": "a", "eval_ids": tuple(eval_ids(1)), **dict([change])})
    await bucket.create("holds/a/additions/production/1.json.gz", gzip.compress(changed.as_json()), LABELS)
    with pytest.raises(IntegrityError, match="an addition to matter a"):
        [each async for each in read_additions(bucket, "a", "production")]


@pytest.mark.parametrize("data", [b"", b"{}", b'{"schema": 2}'])
async def test_a_damaged_matter_is_an_integrity_error(bucket: Bucket, data: bytes) -> None:
    await create_matter(bucket, "a", "case 17", "operator")
    await overwrite(bucket, "holds/a/matter.json", data)
    for work in (read_matter(bucket, "a"), create_matter(bucket, "a", "x", "y"), begin_release(bucket, "a", "x", "y")):
        with pytest.raises(IntegrityError, match="the record of matter a is damaged"):
            await work


async def test_a_record_of_another_matter_is_an_integrity_error(bucket: Bucket) -> None:
    await create_matter(bucket, "b", "case 17", "operator")
    found = await bucket.read("holds/b/matter.json")
    assert found
    await overwrite(bucket, "holds/a/matter.json", found.data)
    with pytest.raises(IntegrityError, match="of another matter"):
        await read_matter(bucket, "a")


async def test_an_invalid_matter_name_is_refused(bucket: Bucket) -> None:
    with pytest.raises(BadMatterName):
        await read_matter(bucket, "../x")
    with pytest.raises(BadMatterName):
        await record_addition(bucket, "../x", "production", eval_ids(1), "operator")


async def test_concurrent_creations_agree_on_one_record(bucket: Bucket) -> None:
    made = await asyncio.gather(*(create_matter(bucket, "a", f"case {number}", "operator") for number in range(5)))
    assert len(set(made)) == 1
