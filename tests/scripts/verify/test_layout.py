from collections.abc import AsyncIterator

import pytest

from scripts.verify.layout import ArchiveArea, ArchivePlace, evaluation_place, group_objects, place_of, quarantine_place
from tasks.storage.bucket import ListedObject

ID = "0b54a4d4-6e5b-4f3c-9d2a-7c1f0e8b9a10"


@pytest.mark.parametrize(
    ("key", "place"),
    [
        (f"sandbox/{ID}/manifest.json", evaluation_place("sandbox", ID)),
        (f"production/{ID}/revisions/1.json", evaluation_place("production", ID)),
        (f"production/{ID}/", evaluation_place("production", ID)),
        (f"quarantine/sandbox/{ID}/x.zip", quarantine_place("sandbox", ID)),
        ("runs/sandbox/q3/run.json", ArchivePlace(ArchiveArea.RUN, "runs/sandbox/q3/", "sandbox", "q3")),
        ("receipts/sandbox/x", ArchivePlace(ArchiveArea.RECEIPT, "receipts/sandbox/x")),
        (f"events/sandbox/{ID}/x.json", ArchivePlace(ArchiveArea.EVENT, f"events/sandbox/{ID}/", "sandbox", ID)),
        ("holds/x/matter.json", ArchivePlace(ArchiveArea.LEGAL_HOLD, "holds/x/matter.json")),
        ("receipts/disposals/sandbox/x", ArchivePlace(ArchiveArea.CERTIFICATE, "receipts/disposals/sandbox/x")),
    ],
)
def test_a_key_is_parsed_into_its_place(key: str, place: ArchivePlace) -> None:
    assert place_of(key) == place


@pytest.mark.parametrize(
    "key",
    [
        "",
        "sandbox",
        "sandbox/notes.txt",
        f"sandbox/{ID}",
        f"sandbox/{ID.upper()}/manifest.json",
        f"staging/{ID}/manifest.json",
        f"sandbox//{ID}/manifest.json",
        "quarantine/x.zip",
        "runs/sandbox",
        "receipts",
        "holds",
        f"events/sandbox/{ID}",
        f"events/sandbox/{ID}/x/y.json",
        f"events/staging/{ID}/x.json",
    ],
)
def test_an_unknown_key_belongs_to_no_evaluation(key: str) -> None:
    assert place_of(key) == ArchivePlace(ArchiveArea.NONE, key)


async def test_objects_are_grouped_by_evaluation_in_any_order_of_the_listing() -> None:
    keys = [f"sandbox/{ID}/a", f"sandbox/{ID}/b", f"sandbox/{ID}/c/d", "x", "y"]

    async def listing(size: int) -> AsyncIterator[list[ListedObject]]:
        for at in range(0, len(keys), size):
            yield [ListedObject(key, 1, 0.0) for key in keys[at : at + size]]

    for size in (1, 2, 3, 5):
        groups = [[stored.key for stored in group.objects or ()] async for group in group_objects(listing(size))]
        assert groups == [keys[:3], ["x"], ["y"]]
