"""A manifest is read, or the reason is reported."""

import json

import pytest

from scripts.verify.objects_api import IRREGULAR
from scripts.verify.problems import Difference
from scripts.verify.record import ManifestRecord, read_record
from tasks.storage.bucket import ListedObject
from tests.scripts.verify.manifests import EVALUATION, bucket_with, list_objects, manifest

KEY = EVALUATION.manifest_key
WHOLE = manifest().as_json()


def change(**facts: object) -> bytes:
    return json.dumps(json.loads(WHOLE) | facts).encode()


async def test_a_manifest_is_read_with_its_hash_or_none_when_it_is_missing() -> None:
    found = await read_record(await bucket_with({KEY: WHOLE}), EVALUATION, KEY, list_objects({KEY: WHOLE})[KEY])
    assert isinstance(found, ManifestRecord)
    assert (found.manifest.as_json(), found.key) == (WHOLE, KEY)
    assert await read_record(await bucket_with({}), EVALUATION, KEY, None) is None


@pytest.mark.parametrize(
    ("data", "problem", "detail"),
    [
        (b"", "manifest_damaged", "not valid JSON"),
        (WHOLE[:-5], "manifest_damaged", "not valid JSON"),
        (change(schema=2), "manifest_damaged", "newer format (2)"),
        (change(documents=1), "manifest_damaged", "does not match its schema"),
        (change(eval_id="0b54a4d4-6e5b-4f3c-9d2a-7c1f0e8b9a11"), "manifest_foreign", "another evaluation"),
        (change(environment="production"), "manifest_foreign", "another evaluation or environment"),
    ],
)
async def test_an_invalid_manifest_is_reported(data: bytes, problem: str, detail: str) -> None:
    found = await read_record(await bucket_with({KEY: data}), EVALUATION, KEY, None)
    assert isinstance(found, Difference)
    assert (found.eval_id, found.key, found.problem) == (EVALUATION.eval_id, KEY, problem)
    assert detail in found.detail


@pytest.mark.parametrize("size", [IRREGULAR, (64 << 20) + 1])
async def test_an_object_is_not_read_when_it_is_not_a_file_or_too_large(size: int) -> None:
    found = await read_record(await bucket_with({KEY: WHOLE}), EVALUATION, KEY, ListedObject(KEY, size, 0.0))
    assert isinstance(found, Difference)
    assert (found.problem, "too large for a manifest" in found.detail) == ("manifest_damaged", True)
