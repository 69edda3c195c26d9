"""The root of a compound file is found at any offset, and a hostile file does not take long."""

import itertools
import struct
import time
from collections.abc import Callable
from uuid import UUID

import pytest

from tasks.bundle.ole_directory import read_root
from tests.ole import FREE, compound_file

INSTALLER = UUID("000c1084-0000-0000-c000-000000000046")
TABLES_AT, MORE_TABLES_AT, DIRECTORY_AT = 76, 68, 48


def names_in(data: bytes) -> frozenset[str]:
    root = read_root(data)
    return root.names if root else frozenset()


def replace_numbers(data: bytes, at: int, *values: int) -> bytes:
    """Return the data with other numbers at an offset."""
    changed = bytearray(data)
    struct.pack_into(f"<{len(values)}I", changed, at, *values)
    return bytes(changed)


@pytest.mark.parametrize(
    ("shift", "before"),
    [(9, 0), (12, 0), (9, 300), (9, 15_000), pytest.param(9, 40_000, id="two tables of tables")],
)
def test_names_are_read_at_any_offset_of_the_directory(shift: int, before: int) -> None:
    data = compound_file("\1CompObj", "WordDocument", shift=shift, before=before)

    assert names_in(data) == {"\1compobj", "worddocument"}


def test_the_root_does_not_contain_the_names_of_an_embedded_document() -> None:
    data = compound_file("WordDocument", nested=("Workbook", "PowerPoint Document"))

    assert names_in(data) == {"worddocument", "objectpool"}


def test_a_directory_of_many_sectors_is_read_completely() -> None:
    data = compound_file(*(f"__substg1.0_{number:08X}" for number in range(300)), "__properties_version1.0")

    assert len(names_in(data)) == 301


def test_the_root_has_the_class_id_of_the_program() -> None:
    root = read_root(memoryview(compound_file(class_id=INSTALLER)))

    assert root
    assert (root.names, root.class_id) == (frozenset(), INSTALLER)


def cyclic_chain(data: bytes) -> bytes:
    return replace_numbers(data, 512, *range(1, 128), 0)


def chain_of_one(data: bytes) -> bytes:
    return replace_numbers(data, 512, *range(128))


def cyclic_siblings(data: bytes) -> bytes:
    return b"".join(
        (data[:1024], *(replace_numbers(data[at : at + 128], 68, 1, 0, 2) for at in range(1024, len(data), 128)))
    )


def cyclic_tables(data: bytes) -> bytes:
    endless = replace_numbers(data, MORE_TABLES_AT, 1, 1 << 31)
    return replace_numbers(endless, TABLES_AT, *[FREE] * 109)


HOSTILE: list[Callable[[bytes], bytes]] = [
    cyclic_chain,
    chain_of_one,
    cyclic_siblings,
    cyclic_tables,
    lambda data: replace_numbers(data, TABLES_AT, *[0xFFFFFFF0] * 109),
    lambda data: replace_numbers(data, DIRECTORY_AT, FREE),
    lambda data: replace_numbers(data, DIRECTORY_AT, 1 << 30),
    lambda data: data[:30] + b"\xff\xff" + data[32:],
    lambda data: data[:30] + b"\0\0" + data[32:],
    lambda data: data[:8] + b"\xff" * (len(data) - 8),
    lambda data: data[:8] + bytes(len(data) - 8),
]


@pytest.mark.parametrize("damage", HOSTILE)
def test_reading_a_hostile_file_ends_quickly(damage: Callable[[bytes], bytes]) -> None:
    data = damage(compound_file(*map(str, range(100)), nested=("Workbook",))) + bytes(4_000_000)
    began = time.process_time()

    assert "workbook" not in names_in(data)

    assert time.process_time() - began < 2  # following a cycle would take forever


def test_a_truncated_file_is_read_without_an_error() -> None:
    data = compound_file("\1CompObj", "WordDocument", "1Table", "Data")

    read = [names_in(data[:size]) for size in range(len(data) + 1)]

    assert (read[0], read[600], read[-1]) == (frozenset(), frozenset(), {"\1compobj", "worddocument", "1table", "data"})
    assert all(len(earlier) <= len(later) for earlier, later in itertools.pairwise(read))


def test_a_root_with_too_many_names_is_read_up_to_a_limit() -> None:
    assert len(names_in(compound_file(*map(str, range(10_000))))) == 4_096
