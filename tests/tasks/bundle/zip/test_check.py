import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import replace

import pytest

from tasks.bundle.zip.buffers import Buffer
from tasks.bundle.zip.check import Padding, check
from tasks.bundle.zip.directory import DESCRIPTOR, UTF8_NAME, ZipEntry
from tasks.bundle.zip.errors import BadZip
from tasks.memory.spool import Spool
from tests.zips import (
    Raw,
    descriptor,
    forged,
    streamed_zip_of,
    wide_zip_of,
    zip64_extra,
    zip_of,
)

Fields = dict[str, int | bytes]
Writer = Callable[[dict[str, bytes]], bytes]

FULL = 0xFFFF_FFFF
CONTENT = b"some content"
FILES = {"front.jpg": b"front" * 50, "back.jpg": b"back", "empty": b"", "folder/": b""}


def checked(data: Buffer) -> tuple[ZipEntry, ...]:
    return check(data, max_entries=100).entries


def cause_of(data: bytes) -> str:
    with pytest.raises(BadZip) as caught:
        checked(data)
    assert caught.value.why
    return caught.value.cause


@pytest.mark.parametrize("write", [zip_of, streamed_zip_of, wide_zip_of])
def test_bundles_of_the_standard_library_are_consistent(write: Writer) -> None:
    data = write(FILES)

    entries = checked(data)

    assert [entry.name.decode() for entry in entries] == list(FILES)
    assert [entry.size for entry in entries] == [len(content) for content in FILES.values()]
    assert [entry.crc for entry in entries] == [zlib.crc32(content) for content in FILES.values()]


def test_a_bundle_without_forged_fields_is_consistent() -> None:
    (entry,) = checked(forged())

    assert (entry.name, entry.size, entry.compressed_size, entry.method) == (b"a.txt", 12, 12, 0)


def test_entries_point_to_their_data() -> None:
    data = forged(Raw(name=b"a", content=b"first"), Raw(name=b"b", content=b"second"))

    assert [data[entry.data_offset : entry.data_end] for entry in checked(data)] == [b"first", b"second"]


def test_a_bundle_without_entries_is_consistent() -> None:
    assert checked(b"PK\5\6" + bytes(18)) == ()


def test_a_mapped_bundle_is_read_like_one_in_memory() -> None:
    data = zip_of(FILES)
    spool = Spool(None)
    spool.put([data])
    assert checked(spool.mapped()) == checked(data)


def test_duplicate_names_are_accepted() -> None:
    assert [entry.name for entry in checked(forged(Raw(), Raw()))] == [b"a.txt", b"a.txt"]


def test_a_comment_is_accepted() -> None:
    assert len(checked(zip_of(FILES, comment=b"exported by hand"))) == len(FILES)


def test_leading_bytes_are_accepted_when_the_offsets_count_them() -> None:
    data = forged(before=b"MZ a program that extracts itself")

    (entry,) = checked(data)

    assert data[entry.data_offset : entry.data_end] == CONTENT


PREFIXES = [
    b"\n",
    b" \t\r\n",
    bytes(1000),
    b"MZ a program that extracts itself",
    b"PK",
    b"Content-Type: application/zip\r\n\r\n",
]


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("wide", [False, True])
def test_leading_bytes_are_accepted_whether_the_offsets_count_them_or_not(prefix: bytes, *, wide: bool) -> None:
    end64 = {} if wide else None
    members = [
        Raw(name=b"a", content=b"first"),
        Raw(name=b"b", flags=DESCRIPTOR, descriptor=descriptor(CONTENT, CONTENT)),
    ]
    for data in (forged(*members, before=prefix, end64=end64), prefix + forged(*members, end64=end64)):
        found = check(data, max_entries=2)
        assert [data[entry.data_offset : entry.data_end] for entry in found.entries] == [b"first", CONTENT]
        assert found.padding == Padding(len(prefix), 0)


@pytest.mark.parametrize("mark", [b"PK\1\2", b"PK\3\4", b"PK\5\6", b"PK\6\6", b"PK\6\7"])
@pytest.mark.parametrize("around", [(b"", b""), (b"some ", b" text"), (bytes((1 << 20) - 2), b"\n")])
def test_leading_bytes_are_refused_when_they_contain_a_zip_signature(mark: bytes, around: tuple[bytes, bytes]) -> None:
    prefix = mark.join(around)

    assert cause_of(prefix + forged()) == "misplaced_directory"
    assert cause_of(forged(before=prefix)) == "hidden_member"


@pytest.mark.parametrize("marker", [b"PK\7\x08", b"PK00"])
def test_a_spanning_marker_is_accepted(marker: bytes) -> None:
    assert len(checked(forged(before=marker))) == 1


def test_a_zip64_end_record_is_refused_when_it_counts_other_leading_bytes_than_the_members() -> None:
    at = len(forged(end64={})) - 42 - 56
    assert cause_of(b"12345" + forged(end64={}, locator={"at": at + 4})) == "bad_zip64"
    assert cause_of(b"12345" + forged(end64={}, locator={"at": at + 5})) == "misplaced_directory"


@pytest.mark.parametrize("after", [b"\0", b"\n", b"\r\n", b" \t", bytes(1000), bytes(200_000)])
@pytest.mark.parametrize("write", [zip_of, lambda files: zip_of(files, comment=b"a comment \0"), wide_zip_of])
def test_only_padding_is_accepted_after_the_end_record(write: Writer, after: bytes) -> None:
    assert check(write(FILES) + after, max_entries=9).padding == Padding(0, len(after))
    assert cause_of(write(FILES) + after + b"x") == "no_end_record"
    assert cause_of(write(FILES) + b"x" + after) == "no_end_record"
    assert cause_of(write(FILES)[:-3] + after[:1]) == "no_end_record"


def test_a_mapped_bundle_with_padding_is_checked_like_one_in_memory() -> None:
    data = b"\n" * 100_000 + zip_of(FILES) + bytes(100_000)
    spool = Spool(None)
    spool.put([data])
    assert check(spool.mapped(), max_entries=9) == check(data, max_entries=9)


def test_bytes_between_members_are_accepted() -> None:
    assert len(checked(forged(Raw(), Raw(gap=b"padding"), before_directory=b"padding"))) == 2


@pytest.mark.parametrize(
    "hiding",
    [
        {"before": Raw().local_header()},
        {"before": b"text" + Raw().local_header()},
        {"members": [Raw(), Raw(gap=Raw().local_header() + CONTENT)]},
        {"members": [Raw(), Raw(gap=b"text" + Raw().local_header() + CONTENT)]},
        {"before_directory": Raw().local_header() + CONTENT},
        {"before_directory": b"text" + Raw().local_header() + CONTENT},
        {"members": [], "before_directory": Raw().local_header() + CONTENT},
    ],
)
def test_a_member_is_detected_when_the_directory_does_not_list_it(hiding: dict[str, object]) -> None:
    assert cause_of(forged(**hiding)) == "hidden_member"


@pytest.mark.parametrize("data", [b"", b"PK", b"<html>login</html>", bytes(100_000), zip_of(FILES)[:-1]])
def test_a_file_is_refused_when_it_has_no_end_record(data: bytes) -> None:
    assert cause_of(data) == "no_end_record"


def test_a_truncated_bundle_is_refused_wherever_it_is_cut() -> None:
    data = streamed_zip_of(FILES)
    for length in range(len(data)):
        with pytest.raises(BadZip):
            checked(data[:length])


def test_two_concatenated_bundles_are_refused() -> None:
    assert cause_of(zip_of({"a": b"1"}) + zip_of({"b": b"2"})) == "misplaced_directory"


def test_a_bundle_in_the_comment_is_refused_as_ambiguous() -> None:
    inner = zip_of({"b": b"2"})

    assert cause_of(zip_of({"a": b"1"}, comment=inner)) == "ambiguous_end"


@pytest.mark.parametrize("after", [b"", b"\n", bytes(30)])
def test_a_second_end_record_is_refused_whatever_follows(after: bytes) -> None:
    second = b"PK\5\6" + bytes(18)

    assert cause_of(zip_of(FILES) + second + after) == "misplaced_directory"
    assert cause_of(zip_of(FILES, comment=second) + after) == "ambiguous_end"
    assert cause_of(zip_of(FILES, comment=second[:-1]) + after) in {"ambiguous_end", "misplaced_directory"}


def test_a_comment_is_refused_when_it_contains_the_signature_of_an_end_record() -> None:
    assert cause_of(zip_of(FILES, comment=b"PK\5\6")) == "ambiguous_end"


def test_a_stored_bundle_is_accepted_as_last_member() -> None:
    nested = zip_of({"inner.txt": b"inner"})

    assert [entry.name for entry in checked(zip_of({"nested.zip": nested}, zipfile.ZIP_STORED))] == [b"nested.zip"]


def test_a_bundle_is_refused_when_it_has_too_many_entries() -> None:
    with pytest.raises(BadZip) as caught:
        check(forged(Raw(), Raw(), Raw()), max_entries=2)
    assert caught.value.cause == "too_many_documents"


@pytest.mark.parametrize(
    ("end", "cause"),
    [
        ({"disk": 1}, "multi_disk"),
        ({"first": 1}, "multi_disk"),
        ({"here": 0}, "multi_disk"),
        ({"here": 2, "count": 2}, "bad_directory"),
        ({"here": 0, "count": 0}, "bad_directory"),
        ({"here": 0xFFFF, "count": 0xFFFF}, "too_many_documents"),
        ({"size": 0}, "misplaced_directory"),
        ({"size": FULL}, "misplaced_directory"),
        ({"offset": 0}, "misplaced_directory"),
        ({"offset": FULL}, "misplaced_directory"),
        ({"offset": 0, "size": 42 + 5 + 51}, "bad_directory"),
    ],
)
def test_an_end_record_is_refused_when_it_contradicts_the_directory(end: dict[str, int], cause: str) -> None:
    assert cause_of(forged(end=end)) == cause


def test_bytes_after_the_directory_are_refused() -> None:
    assert cause_of(forged(after_directory=b"PK\5\5\0\0")) == "misplaced_directory"


FULL_END = {"here": 0xFFFF, "count": 0xFFFF, "size": FULL, "offset": FULL}


@pytest.mark.parametrize("end", [FULL_END, {}, {"offset": FULL}])
def test_a_zip64_end_record_is_accepted_when_it_agrees(end: dict[str, int]) -> None:
    assert len(checked(forged(end=end, end64={}))) == 1


@pytest.mark.parametrize(
    ("fields", "cause"),
    [
        ({"end64": {"count": 2}}, "bad_zip64"),
        ({"end64": {"count": 2, "here": 2}, "end": FULL_END}, "bad_directory"),
        ({"end64": {"count": 2}, "end": FULL_END}, "multi_disk"),
        ({"end64": {"disk": 1}, "end": {**FULL_END, "disk": 0xFFFF}}, "multi_disk"),
        ({"end64": {"size": 1 << 63}, "end": FULL_END}, "misplaced_directory"),
        ({"end64": {"offset": (1 << 64) - 1}, "end": FULL_END}, "misplaced_directory"),
        ({"end64": {"count": 1 << 60, "here": 1 << 60}, "end": FULL_END}, "too_many_documents"),
        ({"end64": {}, "locator": {"disk": 1}}, "multi_disk"),
        ({"end64": {}, "locator": {"disks": 2}}, "multi_disk"),
        ({"end64": {}, "locator": {"at": 0}}, "bad_zip64"),
        ({"end64": {}, "locator": {"at": 1 << 63}}, "bad_zip64"),
        ({"end64": {}, "after_directory": b"extra"}, "misplaced_directory"),
    ],
)
def test_a_zip64_end_record_is_refused_when_it_disagrees(fields: dict[str, object], cause: str) -> None:
    assert cause_of(forged(**fields)) == cause


def test_a_zip64_locator_without_its_record_is_refused() -> None:
    locator = b"PK\6\7" + struct.pack("<LQL", 0, 0, 1)

    assert cause_of(locator + b"PK\5\6" + bytes(18)) == "bad_zip64"


def test_a_zip64_end_record_of_another_length_is_refused() -> None:
    data = forged(end64={})
    at = data.rindex(b"PK\6\6") + 4

    assert cause_of(data[:at] + struct.pack("<Q", 45) + data[at + 8 :]) == "bad_zip64"


def test_saturated_fields_are_read_from_the_zip64_extra_field() -> None:
    wide = {"size": FULL, "packed": FULL, "extra": zip64_extra(12, 12)}

    (entry,) = checked(forged(Raw(local=wide, central=wide)))

    assert (entry.size, entry.compressed_size) == (12, 12)


def test_only_saturated_fields_are_read_from_the_zip64_extra_field() -> None:
    before = b"prefix"
    wide = {"offset": FULL, "extra": b"UT\1\0x" + zip64_extra(len(before)) + b"\0"}

    (entry,) = checked(forged(Raw(central=wide), before=before))

    assert (entry.header_offset, entry.size) == (6, 12)


@pytest.mark.parametrize(
    ("extra", "cause"),
    [
        (zip64_extra(12), "bad_zip64"),
        (zip64_extra(12, 12) * 2, "bad_zip64"),
        (zip64_extra(12, 12)[:-1], "bad_zip64"),
        (zip64_extra(), "bad_zip64"),
        (b"", "outside_file"),
        (zip64_extra(12, 1 << 63), "outside_file"),
        (zip64_extra(13, 12), "local_header_differs"),
    ],
)
def test_a_zip64_extra_field_is_refused_when_it_does_not_fit(extra: bytes, cause: str) -> None:
    wide = {"size": FULL, "packed": FULL, "extra": extra}

    assert cause_of(forged(Raw(central=wide))) == cause


def test_a_damaged_extra_field_is_accepted_when_it_is_not_needed() -> None:
    assert len(checked(forged(Raw(central={"extra": b"\1\0\xff\xff"})))) == 1


@pytest.mark.parametrize(
    "local",
    [
        {"mark": b"PK\3\5"},
        {"name": b"b.txt"},
        {"name": b"a.txt\0"},
        {"method": 8},
        {"flags": 1},
        {"flags": 1 << 6},
        {"flags": 1 << 13},
        {"crc": 0},
        {"size": 13},
        {"size": 0},
        {"packed": 13},
        {"packed": FULL, "size": FULL, "extra": zip64_extra(12, 13)},
    ],
)
def test_a_local_header_is_refused_when_it_disagrees_with_the_directory(local: Fields) -> None:
    assert cause_of(forged(Raw(local=local))) == "local_header_differs"


@pytest.mark.parametrize("local", [{"time": 0, "date": 0}, {"flags": 2}, {"extra": b"padding"}, {"flags": UTF8_NAME}])
def test_a_local_header_may_differ_in_irrelevant_fields(local: Fields) -> None:
    assert len(checked(forged(Raw(local=local)))) == 1


@pytest.mark.parametrize("header", ["local", "central"])
def test_utf8_flags_may_differ_only_if_the_name_is_ascii(header: str) -> None:
    assert len(checked(forged(Raw(**{header: {"flags": UTF8_NAME}})))) == 1
    assert cause_of(forged(Raw(name="ü".encode(), **{header: {"flags": UTF8_NAME}}))) == "local_header_differs"


@pytest.mark.parametrize(("name", "other"), [(b"a/b\\c", b"a\\b/c"), (b"a/b/c", b"a\\b\\c")])
def test_names_may_differ_in_slashes_and_backslashes(name: bytes, other: bytes) -> None:
    assert [entry.name for entry in checked(forged(Raw(name=name, local={"name": other})))] == [name]
    assert [entry.name for entry in checked(forged(Raw(name=other, local={"name": name})))] == [other]
    assert cause_of(forged(Raw(name=name, local={"name": other.replace(b"c", b"d")}))) == "local_header_differs"


@pytest.mark.parametrize(
    ("central", "cause"),
    [
        ({"disk": 1}, "multi_disk"),
        ({"offset": 1}, "outside_file"),
        ({"offset": 40}, "outside_file"),
        ({"offset": FULL - 1}, "outside_file"),
        ({"packed": 13}, "outside_file"),
        ({"packed": FULL}, "outside_file"),
        ({"mark": b"PK\1\3"}, "bad_directory"),
    ],
)
def test_an_entry_is_refused_when_it_points_elsewhere(central: Fields, cause: str) -> None:
    assert cause_of(forged(Raw(central=central))) == cause


@pytest.mark.parametrize("length_at", [28, 30, 32])
def test_an_entry_is_refused_when_it_extends_beyond_the_directory(length_at: int) -> None:
    data = bytearray(forged())
    at = data.index(b"PK\1\2") + length_at
    data[at : at + 2] = b"\xff\xff"

    assert cause_of(bytes(data)) == "bad_directory"


def test_entries_are_refused_when_they_share_a_member() -> None:
    assert cause_of(forged(Raw(), Raw(central={"offset": 0}))) == "overlapping_members"


def test_a_member_is_refused_inside_another_member() -> None:
    inner = Raw(name=b"inner").local_header()
    outer = Raw(content=inner + CONTENT)
    offset = len(outer.local_header())

    data = forged(outer, Raw(name=b"inner", central={"offset": offset}))

    assert cause_of(data) == "overlapping_members"


def test_a_descriptor_is_refused_when_it_overlaps_the_next_member() -> None:
    first = Raw(flags=DESCRIPTOR, descriptor=descriptor(CONTENT, CONTENT)[:8])

    assert cause_of(forged(first, Raw())) == "bad_descriptor"


def test_a_descriptor_is_refused_when_it_overlaps_the_directory() -> None:
    values = {"crc": int.from_bytes(b"PK\1\2", "little"), "packed": len(CONTENT), "size": DESCRIPTOR}
    central = {"made_by": len(CONTENT), "needed": 0, **values}

    assert cause_of(forged(Raw(flags=DESCRIPTOR, local=values, central=central))) == "overlapping_members"


def test_entries_may_have_another_order_than_their_members() -> None:
    first, second = Raw(name=b"one"), Raw(name=b"two")
    length = len(first.local_header() + first.content)
    shuffled = [
        Raw(name=b"two", central={"offset": length, "name": b"two"}),
        Raw(name=b"one", central={"offset": 0}),
    ]
    members = forged(first, second)[: 2 * length]
    directory = b"".join(member.central_header(0) for member in shuffled)
    end = b"PK\5\6" + struct.pack("<4H2LH", 0, 0, 2, 2, len(directory), len(members), 0)

    assert [entry.name for entry in checked(members + directory + end)] == [b"two", b"one"]


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("mark", [False, True])
@pytest.mark.parametrize(
    "local",
    [
        {"crc": 0, "packed": 0, "size": 0},
        {},
        {"crc": 0, "packed": FULL, "size": FULL},
        {"crc": 0, "packed": FULL, "size": FULL, "extra": zip64_extra(0, 0)},
    ],
)
def test_a_descriptor_is_accepted_in_each_of_its_forms(*, wide: bool, mark: bool, local: Fields) -> None:
    after = descriptor(CONTENT, CONTENT, wide=wide, mark=mark)
    streamed = Raw(flags=DESCRIPTOR, local=local, descriptor=after)

    assert len(checked(forged(streamed, streamed))) == 2


@pytest.mark.parametrize("after", [b"", b"PK\7\x08" + bytes(12), descriptor(b"other", b"other")])
def test_a_descriptor_is_refused_when_it_disagrees(after: bytes) -> None:
    assert cause_of(forged(Raw(flags=DESCRIPTOR, descriptor=after))) == "bad_descriptor"


@pytest.mark.parametrize("header", ["local", "central"])
def test_descriptor_flags_may_differ_only_if_a_correct_descriptor_follows(header: str) -> None:
    streamed = Raw(method=8, **{header: {"flags": DESCRIPTOR}})
    correct = descriptor(CONTENT, streamed.data)

    assert len(checked(forged(replace(streamed, descriptor=correct), Raw()))) == 2
    for wrong in (b"", descriptor(CONTENT, CONTENT), descriptor(b"other", streamed.data), correct[:-1]):
        assert cause_of(forged(replace(streamed, descriptor=wrong), Raw())) == "bad_descriptor"


def test_a_local_header_without_sizes_is_refused_when_it_lacks_the_descriptor_flag() -> None:
    unknown = {"crc": 0, "packed": 0, "size": 0}
    after = descriptor(CONTENT, CONTENT)

    assert len(checked(forged(Raw(local={"flags": DESCRIPTOR, **unknown}, descriptor=after)))) == 1
    central_only = Raw(local=unknown, central={"flags": DESCRIPTOR}, descriptor=after)
    assert cause_of(forged(central_only)) == "local_header_differs"


@pytest.mark.parametrize("field", ["crc", "packed", "size"])
def test_a_local_header_is_refused_when_its_crc_or_sizes_are_neither_zero_nor_right(field: str) -> None:
    streamed = Raw(flags=DESCRIPTOR, local={field: 7}, descriptor=descriptor(CONTENT, CONTENT))

    assert cause_of(forged(streamed)) == "local_header_differs"


def test_a_wide_descriptor_is_accepted_for_a_size_above_4_gib() -> None:
    size = 5 << 30
    after = b"PK\7\x08" + struct.pack("<L2Q", zlib.crc32(CONTENT), 12, size)
    central = {"size": FULL, "extra": zip64_extra(size)}
    streamed = Raw(flags=DESCRIPTOR, local={"size": 0}, central=central, descriptor=after)

    assert checked(forged(streamed))[0].size == size


def test_a_local_header_is_parsed_once_when_many_entries_share_it() -> None:
    padding = (b"\0\0\0\0" * 16_000)[:0xFFFF]
    shared = Raw(local={"size": FULL, "packed": FULL, "extra": padding})
    entries = [shared, *(Raw(central={"offset": 0}) for _ in range(5_000))]

    with pytest.raises(BadZip):
        check(forged(*entries), max_entries=10_000)
