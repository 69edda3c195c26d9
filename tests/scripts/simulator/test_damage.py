import io
import zipfile
import zlib
from collections.abc import Callable

import pytest

from scripts.simulator import damage

DOCUMENTS = {"front.jpg": b"front" * 100, "back.jpg": b"back" * 100}


def test_wrong_crc_damages_only_the_first_member() -> None:
    with zipfile.ZipFile(io.BytesIO(damage.wrong_crc(DOCUMENTS))) as bundle:
        assert bundle.testzip() == "front.jpg"
        assert bundle.read("back.jpg") == DOCUMENTS["back.jpg"]


@pytest.mark.parametrize("damaged_by", [damage.garbage, damage.truncated])
def test_garbage_and_truncated_zips_cannot_be_opened(damaged_by: Callable[[damage.Documents], bytes]) -> None:
    with pytest.raises(zipfile.BadZipFile):
        zipfile.ZipFile(io.BytesIO(damaged_by(DOCUMENTS)))


def test_a_truncated_zip_begins_with_the_signature() -> None:
    assert damage.truncated(DOCUMENTS).startswith(b"PK\x03\x04")
    assert not damage.garbage(DOCUMENTS).startswith(b"PK")


def test_an_empty_zip_is_valid() -> None:
    assert zipfile.ZipFile(io.BytesIO(damage.empty(DOCUMENTS))).namelist() == []


def test_overlapping_members_have_the_same_offset() -> None:
    members = zipfile.ZipFile(io.BytesIO(damage.overlapping(DOCUMENTS))).infolist()
    assert [member.header_offset for member in members] == [0, 0]


def test_a_forged_size_is_larger_than_the_member() -> None:
    bundle = damage.forged_size(DOCUMENTS)
    member = zipfile.ZipFile(io.BytesIO(bundle)).infolist()[0]
    packed = bundle[30 + len(member.filename) :][: member.compress_size]
    assert member.file_size == 2**31 - 1
    assert zlib.decompress(packed, wbits=-15) == DOCUMENTS["front.jpg"]
