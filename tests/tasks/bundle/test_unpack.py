import hashlib
import io
import lzma
import mmap
import random
import re
import stat
import subprocess
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.bundle.unpack import unpack
from tasks.bundle.zip import Limits, Member, Unpacked, Unreadable
from tasks.bundle.zip.check import check
from tasks.bundle.zip.decompress import CHUNK, decompress, zstd
from tasks.bundle.zip.reader import read_entries
from tasks.errors import BadBundle, SpoolError
from tasks.memory.spool import Spool
from tests import fuzzing
from tests.zips import Raw, deflated, forged, streamed_zip_of, wide_zip_of, zip_of

METHODS = [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
UTF8 = 1 << 11
CONTENT = b"some content"
# No available library writes LZMA without an end mark; 7-Zip does.
LZMA_WITHOUT_END_MARK = bytes.fromhex("100205005d0000010000399bc9f2e750555b38b27d77536daefa")


def unpack_bundle(data: bytes, **limits: int) -> Unpacked:
    return unpack(data, Limits(**limits))


def noise(seed: int, length: int) -> bytes:
    """Return incompressible bytes, the same ones every time."""
    return random.Random(seed).randbytes(length)  # noqa: S311  # nothing here is a secret


def contents(unpacked: Unpacked) -> list[tuple[str, bytes]]:
    return [(member.name, bytes(member.data)) for member in unpacked.members]


def single_member(data: bytes) -> Member:
    unpacked = unpack_bundle(data)
    assert not unpacked.unreadable
    (member,) = unpacked.members
    return member


def cause_of(data: bytes) -> str:
    unpacked = unpack_bundle(data)
    assert not unpacked.members
    (unreadable,) = unpacked.unreadable
    assert unreadable.why
    return unreadable.cause


def refusal_of(data: bytes, **limits: int) -> str:
    with pytest.raises(BadBundle) as caught:
        unpack_bundle(data, **limits)
    return caught.value.cause


# Bundles that are read


@pytest.mark.parametrize("write", [zip_of, streamed_zip_of, wide_zip_of])
def test_unpack_returns_the_packed_files(write: Callable[[dict[str, bytes]], bytes]) -> None:
    files = {"user_uploaded/front.jpg": b"front" * 1000, "user_uploaded/back.jpg": b"back", "empty": b""}

    assert contents(unpack_bundle(write(files))) == list(files.items())


def test_a_member_has_its_hash_size_and_local_time() -> None:
    member = single_member(zip_of({"a.txt": CONTENT}))

    assert member == Member(
        name="a.txt",
        data=CONTENT,
        sha256=hashlib.sha256(CONTENT).hexdigest(),
        size=len(CONTENT),
        modified="2026-01-31T12:00:00",
    )


@given(
    files=st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs", "Co"], exclude_characters="\0")).filter(
            lambda name: not name.endswith(("/", "\\"))  # folders
        ),
        st.binary(max_size=300) | st.builds(lambda part, times: part * times, st.binary(), st.integers(0, 5000)),
        max_size=5,
    ),
    method=st.sampled_from(METHODS),
    write=st.sampled_from([zip_of, streamed_zip_of]),
)
def test_unpack_returns_the_packed_bytes_for_any_names_and_methods(
    files: dict[str, bytes], method: int, write: Callable[[dict[str, bytes], int], bytes]
) -> None:
    unpacked = unpack(write(files, method), Limits(max_ratio=1 << 20))

    assert contents(unpacked) == list(files.items())
    assert not unpacked.unreadable


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, 65_537, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 7])
def test_members_are_read_to_their_end_at_chunk_boundaries(method: int, size: int) -> None:
    content = noise(size, size)

    assert single_member(zip_of({"a": content}, method)).data == content


def test_an_lzma_member_is_read_without_an_end_mark() -> None:
    assert single_member(forged(Raw(method=14, packed=LZMA_WITHOUT_END_MARK))).data == CONTENT


@pytest.mark.parametrize("size", [0, 1, CHUNK, 3 * CHUNK + 7])
def test_zstandard_and_xz_members_are_read(size: int) -> None:
    content = noise(size, size)
    members = (
        Raw(name=b"zstandard", method=93, content=content, packed=zstd.compress(content)),
        Raw(name=b"xz", method=95, content=content, packed=lzma.compress(content)),
    )
    assert contents(unpack_bundle(forged(*members))) == [("zstandard", content), ("xz", content)]


@pytest.mark.parametrize("packed", [b"\x28\xb5\x2f\xfd\x00\xa8" + bytes(20), lzma.compress(b"x" * 9, preset=9)[:40]])
def test_a_member_is_unreadable_when_its_decoder_needs_too_much_memory(packed: bytes) -> None:
    assert cause_of(forged(Raw(method=93 if packed[0] == 0x28 else 95, packed=packed))) in {"corrupt_data", "truncated"}


def test_a_bundle_without_files_has_no_members() -> None:
    assert unpack_bundle(zip_of({})) == Unpacked((), ())


def test_folders_are_skipped_and_not_counted() -> None:
    unpacked = unpack_bundle(zip_of({"folder/": b"", "folder/a": b"1"}), max_documents=1)

    assert contents(unpacked) == [("folder/a", b"1")]


def test_a_folder_is_skipped_when_only_its_mode_marks_it() -> None:
    assert unpack_bundle(forged(Raw(content=b"", attributes=stat.S_IFDIR << 16))) == Unpacked((), ())


def test_a_file_is_regular_when_its_mode_has_no_valid_type() -> None:
    assert single_member(forged(Raw(attributes=0o070755 << 16))).data == CONTENT


def test_a_nested_bundle_is_an_ordinary_member() -> None:
    inner = zip_of({"inner.txt": CONTENT})

    assert single_member(zip_of({"inner.zip": inner})).data == inner


def test_members_are_all_kept_when_their_names_are_equal() -> None:
    assert contents(unpack_bundle(forged(Raw(content=b"1"), Raw(content=b"2")))) == [("a.txt", b"1"), ("a.txt", b"2")]


def test_members_keep_the_order_of_the_directory() -> None:
    files = {name: name.encode() for name in "zyxabc"}

    assert [member.name for member in unpack_bundle(zip_of(files)).members] == list(files)


# Names


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../../etc/passwd",
        "/etc/passwd",
        "C:\\Windows\\system.ini",
        "C:relative",
        "\\\\server\\share",
        "a\0b.jpg",
        "line\nbreak\r\x1b[31m",
        "a" * 10_000,
        "CON",
        "name with blanks ",
        "driver's_license",
    ],
)
@pytest.mark.parametrize("flags", [0, UTF8])
def test_an_unusual_name_is_kept_unchanged(name: str, flags: int) -> None:
    assert single_member(forged(Raw(name=name.encode(), flags=flags))).name == name


def test_a_name_is_decoded_as_the_bundle_declares_it() -> None:
    assert single_member(forged(Raw(name="Führerschein-前.jpg".encode(), flags=UTF8))).name == "Führerschein-前.jpg"
    assert single_member(forged(Raw(name=b"F\x81hrerschein"))).name == "Führerschein"


def test_a_name_is_escaped_when_it_is_not_valid_utf8() -> None:
    unpacked = unpack_bundle(forged(Raw(name=b"front\xff.jpg", flags=UTF8), Raw(name=b"back.jpg")))

    assert [member.name for member in unpacked.members] == ["front\uefff.jpg", "back.jpg"]


@given(st.binary(max_size=30), st.sampled_from([0, UTF8]))
def test_a_name_can_be_restored_to_its_bytes_and_is_valid_text(raw: bytes, flags: int) -> None:
    member = single_member(forged(Raw(name=raw.rstrip(b"/"), flags=flags)))

    assert member.name.encode("utf-8", "strict").decode() == member.name
    assert original(member) == raw.rstrip(b"/")


def test_a_name_is_escaped_when_it_contains_escape_characters() -> None:
    assert single_member(forged(Raw(name=b"\xff", flags=UTF8))).name == "\uefff"
    assert single_member(forged(Raw(name="\uefff".encode(), flags=UTF8))).name == "\uefee\uefbf\uefbf"


def original(member: Member) -> bytes:
    """Undo the escaping that the documentation of ``Member.name`` describes."""
    if member.name_encoding == "cp437":
        return member.name.encode("cp437")
    return b"".join(
        bytes([ord(char) - 0xEF00]) if "\uef80" <= char <= "\uefff" else char.encode() for char in member.name
    )


# Times


@pytest.mark.parametrize(
    ("date", "time", "modified"),
    [
        (46 << 9 | 1 << 5 | 31, 12 << 11, "2026-01-31T12:00:00"),
        (1 << 5 | 1, 0, "1980-01-01T00:00:00"),
        (127 << 9 | 12 << 5 | 31, 23 << 11 | 59 << 5 | 29, "2107-12-31T23:59:58"),
        (0, 0, None),
        (46 << 9 | 0 << 5 | 31, 0, None),
        (46 << 9 | 13 << 5 | 1, 0, None),
        (46 << 9 | 2 << 5 | 30, 0, None),
        (1 << 5 | 1, 24 << 11, None),
        (1 << 5 | 1, 60 << 5, None),
        (1 << 5 | 1, 30, None),
    ],
)
def test_modified_is_none_when_the_time_does_not_exist(date: int, time: int, modified: str | None) -> None:
    assert single_member(forged(Raw(central={"date": date, "time": time}))).modified == modified


# Single members that cannot be read


@pytest.mark.parametrize(
    ("member", "cause"),
    [
        (Raw(flags=1), "encrypted"),
        (Raw(flags=1, method=99), "encrypted"),
        (Raw(flags=1 << 6), "encrypted"),
        (Raw(flags=1 << 5), "unsupported_method"),
        (Raw(method=9), "unsupported_method"),
        (Raw(method=93), "corrupt_data"),
        (Raw(method=93, packed=zstd.compress(CONTENT)[:-1]), "truncated"),
        (Raw(method=93, packed=zstd.compress(CONTENT) + b"x"), "trailing_data"),
        (Raw(method=95), "corrupt_data"),
        (Raw(method=98), "unsupported_method"),
        (Raw(method=12345), "unsupported_method"),
        (Raw(attributes=(stat.S_IFLNK | 0o777) << 16), "symlink"),
        (Raw(name=b"folder/", attributes=stat.S_IFLNK << 16), "symlink"),
        (Raw(name=b"folder/"), "folder_with_content"),
        (Raw(local={"crc": 1}, central={"crc": 1}), "wrong_crc"),
        (Raw(local={"size": 13}, central={"size": 13}), "wrong_size"),
        (Raw(local={"size": 0}, central={"size": 0}), "wrong_size"),
        (Raw(method=8, packed=b"\xff" * 20), "corrupt_data"),
        (Raw(method=8, packed=b""), "truncated"),
        (Raw(method=8, packed=deflated(CONTENT)[:-1]), "truncated"),
        (Raw(method=8, packed=deflated(CONTENT) + b"\0"), "trailing_data"),
        (Raw(method=8, packed=deflated(CONTENT) + bytes(100_000)), "trailing_data"),
        (Raw(method=8, packed=deflated(CONTENT) * 2), "trailing_data"),
        (Raw(method=8, local={"size": 1}, central={"size": 1}), "wrong_size"),
        (Raw(method=12, packed=b"BZh9garbage......"), "corrupt_data"),
        (Raw(method=12, packed=b"BZh9"), "truncated"),
        (Raw(method=14, packed=LZMA_WITHOUT_END_MARK[:8]), "truncated"),
        (Raw(method=14, packed=LZMA_WITHOUT_END_MARK[:-1]), "truncated"),
        (Raw(method=14, packed=LZMA_WITHOUT_END_MARK + b"\0"), "trailing_data"),
        (Raw(method=14, packed=LZMA_WITHOUT_END_MARK, flags=2), "truncated"),
        (Raw(method=14, packed=b"\0\0\6\0" + LZMA_WITHOUT_END_MARK[4:]), "corrupt_data"),
        (Raw(method=14, packed=b"\0\0\5\0" + b"\xff" * 20), "corrupt_data"),
    ],
)
def test_an_unreadable_member_has_a_cause_and_does_not_stop_the_others(member: Raw, cause: str) -> None:
    first, last = Raw(name=b"first", content=b"1"), Raw(name=b"last", content=b"2")

    unpacked = unpack_bundle(forged(first, member, last))

    assert contents(unpacked) == [("first", b"1"), ("last", b"2")]
    assert [(one.name, one.cause) for one in unpacked.unreadable] == [(member.name.decode(), cause)]


def test_an_lzma_member_is_refused_when_its_dictionary_is_huge() -> None:
    huge = LZMA_WITHOUT_END_MARK[:5] + b"\xff\xff\xff\xff" + LZMA_WITHOUT_END_MARK[9:]

    assert cause_of(forged(Raw(method=14, packed=huge))) == "corrupt_data"


def test_the_explanation_of_an_unreadable_member_does_not_contain_its_name() -> None:
    unpacked = unpack_bundle(forged(Raw(name=b"jane_doe.jpg", method=9)))

    assert unpacked.unreadable == (
        Unreadable("jane_doe.jpg", "unsupported_method", "its compression method, 9 (Deflate64), is not supported"),
    )


# Budgets


def test_a_bundle_is_refused_when_it_has_too_many_files() -> None:
    assert refusal_of(zip_of({"a": b"", "b": b"", "c": b""}), max_documents=2) == "too_many_documents"
    assert len(unpack_bundle(zip_of({"a": b"", "b": b""}), max_documents=2).members) == 2


def test_a_bundle_is_refused_when_it_has_too_many_folders() -> None:
    data = bytearray(zip_of({"folder/": b""}))
    data[-14:-10] = b"\xff\xff\xff\xff"

    assert refusal_of(bytes(data), max_documents=1) == "too_many_documents"


@pytest.mark.parametrize("method", METHODS)
def test_a_bundle_is_refused_when_it_unpacks_to_too_many_bytes(method: int) -> None:
    data = zip_of({"a": bytes(1000), "b": bytes(1000)}, method)

    assert refusal_of(data, max_unpacked_bytes=1999) == "too_large"
    assert len(unpack_bundle(data, max_unpacked_bytes=2000).members) == 2


def test_a_document_that_is_too_large_does_not_stop_the_others() -> None:
    unpacked = unpack_bundle(zip_of({"large": bytes(1001), "fits": bytes(1000)}), max_document_bytes=1000)
    assert [(one.name, one.cause) for one in unpacked.unreadable] == [("large", "document_too_large")]
    assert contents(unpacked) == [("fits", bytes(1000))]


def test_the_size_limit_counts_unpacked_bytes_when_the_header_is_forged() -> None:
    forged_fields = {"size": 10, "crc": 0}
    bomb = Raw(method=8, content=bytes(5 << 20), local=forged_fields, central=forged_fields)

    assert refusal_of(forged(bomb), max_unpacked_bytes=1 << 20) == "too_large"


def test_the_size_limit_counts_bytes_of_unreadable_members() -> None:
    broken = Raw(content=bytes(600), local={"crc": 1}, central={"crc": 1})

    assert refusal_of(forged(broken, broken), max_unpacked_bytes=1000) == "too_large"


@pytest.mark.parametrize("method", METHODS[1:])
def test_a_bomb_is_refused_at_the_ratio(method: int) -> None:
    assert refusal_of(zip_of({"bomb": bytes(20 << 20)}, method), ratio_from=1 << 20) == "ratio"


def test_many_small_bombs_are_refused_at_the_ratio() -> None:
    assert refusal_of(zip_of({str(number): bytes(1 << 20) for number in range(20)}), ratio_from=1 << 20) == "ratio"


def test_the_ratio_is_not_checked_when_the_bundle_is_small() -> None:
    assert len(unpack_bundle(zip_of({"a": bytes(1 << 20)}), ratio_from=1 << 20).members) == 1
    assert refusal_of(zip_of({"a": bytes(1 << 20)}), ratio_from=(1 << 20) - 1) == "ratio"


def test_the_ratio_allows_blank_scanned_pages() -> None:
    a4_at_300_dpi, a4_at_600_dpi_in_colour = 2480 * 3508, 4960 * 7016 * 3

    assert single_member(zip_of({"blank.tif": bytes(a4_at_300_dpi)})).size == a4_at_300_dpi
    assert Limits().ratio_from > 2 * a4_at_600_dpi_in_colour


def test_the_ratio_allows_an_empty_page_among_photographs() -> None:
    page, photograph = bytes(2 << 20), noise(1, 20_000)

    assert contents(unpack_bundle(zip_of({"a": page, "b": photograph}), ratio_from=1 << 20)) == [
        ("a", page),
        ("b", photograph),
    ]


def test_a_bomb_is_refused_before_it_takes_memory() -> None:
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = b"".join(compressor.compress(bytes(1 << 20)) for _ in range(64)) + compressor.flush()
    data = forged(Raw(method=8, packed=bomb))

    tracemalloc.start()
    try:
        assert refusal_of(data, max_unpacked_bytes=1 << 20, max_ratio=1 << 20) == "too_large"
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


# Large files


def test_a_large_member_is_mapped_from_an_unnamed_file(tmp_path: Path) -> None:
    content = noise(2, 3 * CHUNK)

    unpacked = unpack(zip_of({"large": content, "small": content[:1000]}), Limits(in_memory=CHUNK), tmp_path)

    large, small = (member.data for member in unpacked.members)
    assert isinstance(large, memoryview)
    assert isinstance(large.obj, mmap.mmap)
    assert large[:] == content
    assert small == content[:1000]
    assert unpacked.members[0].sha256 == hashlib.sha256(content).hexdigest()
    assert not list(tmp_path.iterdir())
    with pytest.raises(TypeError):
        large[0] = 1


def test_a_member_is_spooled_only_when_it_exceeds_the_memory_limit() -> None:
    at, beyond = (unpack(zip_of({"a": bytes(size)}), Limits(in_memory=1000)).members[0].data for size in (1000, 1001))

    assert not isinstance(at.obj, mmap.mmap)
    assert isinstance(beyond.obj, mmap.mmap)


def test_the_spool_folder_is_empty_after_an_unreadable_large_member(tmp_path: Path) -> None:
    broken = Raw(content=bytes(10_000), local={"crc": 1}, central={"crc": 1})

    assert unpack(forged(broken), Limits(in_memory=100), tmp_path).unreadable
    assert not list(tmp_path.iterdir())


def test_unpack_raises_spool_error_when_the_spool_folder_is_missing(tmp_path: Path) -> None:
    with pytest.raises(SpoolError):
        unpack(zip_of({"a": bytes(1000)}), Limits(in_memory=10), tmp_path / "missing")


def test_a_mapped_bundle_is_unpacked_like_one_in_memory(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.put([zip_of({"a": CONTENT})])
    assert contents(unpack(spool.mapped(), Limits())) == [("a", CONTENT)]


def test_all_members_are_in_one_file_when_they_exceed_the_memory_for_the_bundle(tmp_path: Path) -> None:
    unpacked = unpack(zip_of({name: noise(7, 1000) for name in "abcd"}), Limits(in_memory=3999), tmp_path)
    (mapping,) = {id(member.data.obj): member.data.obj for member in unpacked.members}.values()
    assert isinstance(mapping, mmap.mmap)
    assert {bytes(member.data) for member in unpacked.members} == {noise(7, 1000)}


def test_a_member_larger_than_declared_is_unpacked_in_little_memory(tmp_path: Path) -> None:
    bundle = forged(Raw(content=bytes(8 << 20), local={"size": 10}, central={"size": 10}))
    tracemalloc.start()
    try:
        unreadable = unpack(bundle, Limits(ratio_from=1 << 30), tmp_path).unreadable
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert [each.cause for each in unreadable] == ["wrong_size"]
    assert most < 1 << 20


# In memory

PHOTOGRAPHS = {name: noise(number, 250_000) for number, name in enumerate(("front", "back", "selfie"))}


@pytest.mark.parametrize("write", [zip_of, streamed_zip_of, wide_zip_of])
def test_members_share_one_buffer_with_the_same_contents_as_on_disk(
    write: Callable[..., bytes], tmp_path: Path
) -> None:
    bundle = write(PHOTOGRAPHS)
    unpacked = unpack(bundle, Limits(), tmp_path / "missing")
    assert len({id(member.data.obj) for member in unpacked.members}) == 1
    assert unpacked == unpack(bundle, Limits(in_memory=0), tmp_path)
    with pytest.raises(TypeError):
        unpacked.members[0].data[0] = 1  # type: ignore[index]


def test_limits_apply_when_a_bundle_is_unpacked_in_memory() -> None:
    bundle = zip_of({"a": bytes(1000), "b": bytes(1000)})
    for limits in (Limits(max_documents=1), Limits(max_unpacked_bytes=1999)):
        with pytest.raises(BadBundle):
            unpack(bundle, limits)


def test_a_bundle_larger_than_declared_is_detected_after_one_chunk(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bundle = forged(Raw(method=8, content=bytes(64 << 20), local={"size": 9}, central={"size": 9}))
    read: list[tuple[Limits, int]] = []

    def record_limits(data: bytes, checked: Any, limits: Limits, store: Any) -> Unpacked:
        before = sum(size for _, size in read)
        try:
            return read_entries(data, checked, limits, store)
        finally:
            read.append((limits, sum(chunks) - before))

    chunks: list[int] = []

    def record_chunks(*args: Any) -> Iterator[Any]:
        for chunk in decompress(*args):
            chunks.append(len(chunk))
            yield chunk

    monkeypatch.setattr("tasks.bundle.zip.reader.decompress", record_chunks)
    monkeypatch.setattr("tasks.bundle.unpack.read_entries", record_limits)
    assert [each.cause for each in unpack(bundle, Limits(ratio_from=1 << 30)).unreadable] == ["wrong_size"]
    (in_memory, before_found), (spooled, _) = read
    assert in_memory.max_unpacked_bytes == 9
    assert before_found <= CHUNK
    assert spooled == Limits(ratio_from=1 << 30, in_memory=0)


# Damage


ORIGINALS = {
    "front.jpg": noise(3, 700),
    "text.txt": b"all work and no play " * 30,
    "empty": b"",
    "nested.zip": zip_of({"inner.txt": CONTENT}),
}
VALID = [
    *(zip_of(ORIGINALS, method) for method in METHODS),
    *(streamed_zip_of(ORIGINALS, method) for method in METHODS),
    wide_zip_of(ORIGINALS),
    forged(Raw(), Raw(name=b"\xe4", flags=UTF8), before=b"MZ", end64={}),
]


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """Return a valid bundle after one to five changes: flipped bits, forged numbers, cuts and insertions."""
    data = bytearray(draw(st.sampled_from(VALID)))
    for _ in range(draw(st.integers(1, 5))):
        # Most checks read the headers. Changes at random offsets would mostly hit a photograph.
        marks = [at for at in range(len(data) - 4) if data[at : at + 2] == b"PK"] or [0]
        aimed = st.builds(int.__add__, st.sampled_from(marks), st.integers(0, 60))
        at = min(draw(aimed | st.integers(0, len(data))), len(data))
        length = draw(st.integers(0, 40))
        match draw(st.sampled_from(["flip", "flip", "set", "set", "set", "cut", "double", "insert", "end"])):
            case "flip" if at < len(data):
                data[at] ^= 1 << draw(st.integers(0, 7))
            case "set":
                width = draw(st.sampled_from([1, 2, 4, 8]))
                number = draw(st.sampled_from([0, 1, (1 << 8 * width) - 1, 1 << 8 * width - 1]))
                data[at : at + width] = number.to_bytes(width, "little")
            case "cut":
                del data[at : at + length]
            case "double":
                data[at:at] = data[at : at + length]
            case "insert":
                data[at:at] = draw(st.binary(max_size=40))
            case "end":
                del data[len(data) - length :]
    return bytes(data)


@settings(max_examples=100)
@given(damaged())
def test_a_damaged_bundle_yields_the_declared_bytes_or_is_refused(data: bytes) -> None:
    try:
        unpacked = unpack(data, Limits(in_memory=600))
    except BadBundle as error:
        with pytest.raises(BadBundle, match=re.escape(str(error))):
            unpack(data, Limits())
        return
    assert unpack(data, Limits()) == unpacked
    declared = {entry.crc for entry in check(data, max_entries=100).entries}
    for member in unpacked.members:
        assert zlib.crc32(member.data) in declared
        assert hashlib.sha256(member.data).hexdigest() == member.sha256
        assert len(member.data) == member.size


@settings(max_examples=100)
@given(damaged())
def test_zipfile_reads_the_same_members_from_accepted_bundles(data: bytes) -> None:
    try:
        unpacked = unpack(data, Limits())
    except BadBundle:
        return
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            theirs = [archive.read(info) for info in archive.infolist() if not info.is_dir()]
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError, EOFError, OSError):
        return
    except (zlib.error, lzma.LZMAError):
        return
    if not unpacked.unreadable:
        assert [bytes(member.data) for member in unpacked.members] == theirs


@given(st.binary(max_size=200))
def test_random_bytes_of_any_method_become_a_member_or_unreadable(packed: bytes) -> None:
    methods = (8, 12, 14, 93, 95)
    unpacked = unpack_bundle(forged(*(Raw(method=method, packed=packed) for method in methods)))

    assert len(unpacked.members) + len(unpacked.unreadable) == len(methods)


# Other programs


def packed_by(tmp_path: Path, *command: str) -> bytes:
    for name, content in ORIGINALS.items():
        (tmp_path / name).write_bytes(content)
    subprocess.run([*command, *ORIGINALS], cwd=tmp_path, check=True, capture_output=True)
    return (tmp_path / "out.zip").read_bytes()


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(command.split(), marks=pytest.mark.needs(command.split()[0]), id=command)
        for command in (
            "zip out.zip",
            "zip -0 out.zip",
            "zip -Z bzip2 out.zip",
            "zip -fz out.zip",
            "zip -fd out.zip",
            "7z a out.zip",
            "7z a -mm=LZMA out.zip",
            "7z a -mm=BZip2 out.zip",
            "7z a -mm=Copy out.zip",
            "bsdtar -a -cf out.zip",
        )
    ],
)
def test_bundles_of_other_programs_are_read(tmp_path: Path, command: list[str]) -> None:
    unpacked = unpack_bundle(packed_by(tmp_path, *command))

    assert dict(contents(unpacked)) == ORIGINALS
    assert not unpacked.unreadable


@pytest.mark.needs("zip")
def test_a_bundle_that_was_streamed_through_a_pipe_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(CONTENT)

    piped = subprocess.run(["zip", "-", "a.txt"], cwd=tmp_path, check=True, capture_output=True)  # noqa: S607

    assert contents(unpack_bundle(piped.stdout)) == [("a.txt", CONTENT)]


@pytest.mark.needs("zip")
def test_symbolic_links_are_unreadable(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc/passwd")

    subprocess.run(["zip", "-y", "out.zip", "link"], cwd=tmp_path, check=True, capture_output=True)  # noqa: S607

    assert cause_of((tmp_path / "out.zip").read_bytes()) == "symlink"


@pytest.mark.needs("zip")
def test_encrypted_members_have_the_cause_encrypted(tmp_path: Path) -> None:
    data = packed_by(tmp_path, "zip", "-P", "password", "out.zip")

    assert {one.cause for one in unpack_bundle(data).unreadable} == {"encrypted"}


@pytest.mark.needs("7z")
@pytest.mark.parametrize("method", ["Deflate64", "PPMd"])
def test_an_unsupported_method_is_named(tmp_path: Path, method: str) -> None:
    unpacked = unpack_bundle(packed_by(tmp_path, "7z", "a", f"-mm={method}", "out.zip"))
    assert {one.cause for one in unpacked.unreadable} <= {"unsupported_method"}
    assert len(unpacked.unreadable) + len(unpacked.members) == len(ORIGINALS)
    assert all(f"({method})" in one.why for one in unpacked.unreadable)


@pytest.mark.needs("7z")
def test_7z_reads_the_same_files_from_generated_bundles(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    rng = random.Random(7)  # noqa: S311  # no secret depends on it
    for number in range(400 if request.config.getoption("--faults") == "long" else 40):
        write = rng.choice([zip_of, streamed_zip_of, lambda files, _: wide_zip_of(files)])
        files = {
            f"{n}/{rng.randrange(99)}.bin": noise(n, rng.choice((0, 1, 999, 70_000))) for n in range(rng.randint(1, 5))
        }
        data = write(files, rng.choice(METHODS))
        (tmp_path / "a.zip").write_bytes(data)
        subprocess.run(["7z", "x", "-y", f"-oout{number}", "a.zip"], cwd=tmp_path, check=True, capture_output=True)  # noqa: S607
        out = tmp_path / f"out{number}"
        theirs = {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}
        assert dict(contents(unpack_bundle(data))) == theirs == files


# Inputs of the corpus


@pytest.mark.parametrize("path", sorted(fuzzing.CORPUS.glob("*.zip")), ids=lambda path: path.stem)
def test_corpus_bundles_are_read_as_declared_or_refused(path: Path) -> None:
    _, broken = fuzzing.judged(path.read_bytes())
    assert broken is None


def test_a_second_of_fuzzing_finds_no_failure() -> None:
    count, _, broken = fuzzing.fuzz(1.0, seed=7)
    assert broken == []
    assert count > 0


def test_a_photograph_is_inflated_in_one_chunk() -> None:
    bundle = zip_of({"a": noise(1, 250_000)})
    (entry,) = check(bundle, max_entries=1).entries
    assert len(list(decompress(bundle, entry))) == 1
