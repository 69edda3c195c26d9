"""Only the undamaged members of a refused bundle are recovered."""

import random
import zipfile
from collections.abc import Callable

import pytest

from scripts.simulator import damage
from tasks.bundle.unpack import Limits
from tasks.bundle.unpacker import BundleContents, BundleUnpacker
from tasks.bundle.zip_recovery import rebuild_zip
from tests.zips import Raw, forged, streamed_zip_of, wide_zip_of, zip_of

FILES = {"front.jpg": b"front" * 1_000, "back.jpg": bytes(range(256)) * 40, "selfie.jpg": b"selfie" * 900}
RNG = random.Random(21)  # noqa: S311  # no secret


async def read(data: bytes, limits: Limits | None = None, *, lenient: bool = True) -> BundleContents:
    async with BundleUnpacker(limits or Limits()).unpacked(data, lenient=lenient) as contents:
        return contents


def data_by_name(contents: BundleContents) -> dict[str, bytes]:
    return {each.name: bytes(each.data) for each in contents.documents}


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (damage.overlapping(FILES), "overlapping_members"),
        (damage.forged_size(FILES), "local_header_differs"),
        (zip_of(FILES) + b"PK\3\4", "no_end_record"),
        (streamed_zip_of(FILES) + b"PK\3\4", "no_end_record"),
        (streamed_zip_of(FILES, zipfile.ZIP_STORED) + b"PK\3\4", "no_end_record"),
        (wide_zip_of(FILES) + b"PK\3\4", "no_end_record"),
        (b"PK\1\2" + zip_of(FILES), "misplaced_directory"),
    ],
)
async def test_a_refused_bundle_is_not_damaged_if_all_listed_members_are_recovered(data: bytes, cause: str) -> None:
    refused = await read(data, lenient=False)
    assert (refused.documents, refused.lenient, [each.cause for each in refused.unreadable]) == ((), None, [cause])
    contents = await read(data)
    assert data_by_name(contents) == FILES
    assert (contents.lenient, contents.unreadable, contents.is_damaged) == (cause, (), False)


@pytest.mark.parametrize("make", [zip_of, streamed_zip_of, wide_zip_of])
async def test_a_truncated_bundle_gives_the_members_before_the_cut_and_is_damaged(
    make: Callable[[dict[str, bytes]], bytes],
) -> None:
    whole = make(FILES)
    for _ in range(40):
        contents = await read(whole[: RNG.randrange(len(whole))])
        assert data_by_name(contents).items() <= FILES.items()
        assert contents.is_damaged
        assert "" in {each.name for each in contents.unreadable}
        assert bool(contents.lenient) == bool(contents.documents)
    contents = await read(whole[:-1])
    assert data_by_name(contents) == FILES
    assert contents.is_damaged


async def test_a_member_with_a_wrong_checksum_is_unreadable_and_not_recovered() -> None:
    broken = Raw(name=b"back.jpg", content=b"back", local={"crc": 1}, central={"crc": 1})
    contents = await read(forged(Raw(name=b"front.jpg", content=b"front"), broken) + b"PK\3\4")
    assert data_by_name(contents) == {"front.jpg": b"front"}
    assert [(each.name, each.cause) for each in contents.unreadable] == [("back.jpg", "wrong_crc")]


async def test_a_symbolic_link_is_unreadable_and_not_recovered() -> None:
    link = Raw(name=b"link", content=b"/etc/passwd", attributes=0o120777 << 16)
    contents = await read(forged(Raw(name=b"front.jpg", content=b"front"), link) + b"PK\3\4")
    assert data_by_name(contents) == {"front.jpg": b"front"}
    assert [(each.name, each.cause) for each in contents.unreadable] == [("link", "symlink")]


async def test_a_valid_bundle_is_not_marked_as_lenient() -> None:
    assert (await read(zip_of(FILES))).lenient is None


@pytest.mark.parametrize("limits", [Limits(max_documents=2), Limits(max_unpacked_bytes=100)])
async def test_limits_apply_to_recovered_members_too(limits: Limits) -> None:
    contents = await read(zip_of(FILES) + b"PK\3\4", limits)
    assert (contents.documents, contents.lenient) == ((), None)
    assert [each.cause for each in contents.unreadable] == ["no_end_record"]


@pytest.mark.parametrize("data", [b"", b"PK\3\4", b"no ZIP" * 99, damage.garbage(FILES), zip_of({})])
def test_a_file_without_members_is_not_rebuilt(data: bytes) -> None:
    assert rebuild_zip(data) is None


@pytest.mark.parametrize("mark", [b"PK\3\4", b"PK\1\2", b"PK\7\x08"])
def test_only_the_first_marks_are_examined_in_a_file_full_of_marks(mark: bytes) -> None:
    data = (mark + b"\0\0\x08\0" + bytes(24)) * 200_000
    rebuilt = rebuild_zip(data)
    assert rebuilt is None or len(rebuilt.data) < len(data)


async def test_random_damage_never_changes_recovered_content() -> None:
    whole, recovered = zip_of(FILES), set[bytes]()
    for _ in range(150):
        damaged = bytearray(whole)
        for _ in range(RNG.randrange(1, 4)):
            damaged[RNG.randrange(len(damaged))] ^= 1 << RNG.randrange(8)
        recovered |= {bytes(each.data) for each in (await read(bytes(damaged))).documents}
    assert recovered == set(FILES.values())
