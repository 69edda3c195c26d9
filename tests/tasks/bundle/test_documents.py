import hashlib
import io
import mmap
import re
import tempfile
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tasks.bundle.documents import Document, DocumentSource, Kind, KindPattern, identify
from tasks.bundle.media_type import media_type_of
from tasks.bundle.unpack import unpack
from tasks.bundle.zip import Limits, Member
from tests.zips import zip_of
from worker.config.validators import KINDS

WORD = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
EXCEL = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
UNKNOWN = "application/octet-stream"

FRONT, BACK, SELFIE, SECONDARY = Kind.DOCUMENT_FRONT, Kind.DOCUMENT_BACK, Kind.SELFIE, Kind.SECONDARY_DOCUMENT
USER, CASE = DocumentSource.USER_UPLOADED, DocumentSource.CASE_ATTACHMENTS


def member(name: str, data: bytes | mmap.mmap = b"\0") -> Member:
    return Member(name, data, hashlib.sha256(data).hexdigest(), len(data), "2026-01-31T12:00:00")


def image(image_format: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), "teal").save(file, image_format)
    return file.getvalue()


def iso_media(major: bytes, *compatible: bytes) -> bytes:
    brands = major + bytes(4) + b"".join(compatible)
    return (8 + len(brands)).to_bytes(4, "big") + b"ftyp" + brands + b"\0\0\0\x08mdat"


@pytest.mark.parametrize(
    ("name", "kind", "source"),
    [
        ("user_uploaded/document_verification/documentfrontDoc_Front_1_blob.jpg", FRONT, USER),
        ("user_uploaded/document_verification/documentbackDoc_Back_1_blob.jpg", BACK, USER),
        ("user_uploaded/vouched_id_verification/Doc_Selfie_1_blob.jpg", SELFIE, USER),
        ("user_uploaded/document_verification/documentfrontDoc_Front_2_blob.jpg", FRONT, USER),
        ("user_uploaded/document_verification/documentbackDoc_Back_17_blob.png", BACK, USER),
        ("user_uploaded/vouched_id_verification/Doc_Selfie_3_blob.jpg", SELFIE, USER),
        ("user_uploaded/document_verification/front", FRONT, USER),
        ("user_uploaded/document_verification/back", BACK, USER),
        ("user_uploaded/vouched_id_verification/driver's_license", FRONT, USER),
        ("user_uploaded/vouched_id_verification/driver\u2019s license.jpg", FRONT, USER),
        ("user_uploaded/vouched_id_verification/drivers_licence", FRONT, USER),
        ("user_uploaded/document_verification/passport", FRONT, USER),
        ("user_uploaded/document_verification/passportDoc_Front_1_blob.jpg", FRONT, USER),
        ("documentfrontDoc_Front_1_blob.jpg", FRONT, USER),
        ("documentbackDoc_Back_1_blob.jpg", BACK, USER),
        ("Doc_Selfie_1_blob.jpg", SELFIE, USER),
        ("licenseDoc_Front_1_documentFront.jpg", FRONT, USER),
        ("licenseDoc_Back_1_documentBack.jpg", BACK, USER),
        ("Doc_Selfie_1_selfPortrait.jpg", SELFIE, USER),
        ("USER_UPLOADED/DOCUMENT_VERIFICATION/DOCUMENTFRONTDOC_FRONT_1_BLOB.JPG", FRONT, USER),
        ("user_uploaded\\document_verification\\back", BACK, USER),
        ("./user_uploaded/front.jpg", FRONT, USER),
        ("/user_uploaded/selfie.png", SELFIE, USER),
        ("user_uploaded/document_verification/frontier.jpg", Kind.OTHER, USER),
        ("user_uploaded/document_verification/Doc_Front_blob.jpg", Kind.OTHER, USER),
        ("user_uploaded/", Kind.OTHER, DocumentSource.OTHER),
        ("user_uploaded/secondary_documents/bank_statement.pdf", SECONDARY, USER),
        ("user_uploaded/Secondary/documentfrontDoc_Front_1_blob.jpg", SECONDARY, USER),
        ("user_uploaded/a/my-secondary-files/b/c", SECONDARY, USER),
        ("user_uploaded\\secondary_documents\\bill.png", SECONDARY, USER),
        ("elsewhere/user_uploaded/secondary_documents/bill.png", SECONDARY, USER),
        ("user_uploaded/document_verification/secondary.pdf", Kind.OTHER, USER),
        ("secondary_documents/bill.png", Kind.OTHER, DocumentSource.OTHER),
        ("secondary/user_uploaded/bill.png", Kind.OTHER, USER),
        ("case_attachments/user_uploaded/secondary/bill.png", Kind.ATTACHMENT, CASE),
        ("case_attachments/identity.pdf", Kind.ATTACHMENT, CASE),
        ("case_attachments/documentfrontDoc_Front_1_blob.jpg", Kind.ATTACHMENT, CASE),
        ("case_attachments/user_uploaded/front", Kind.ATTACHMENT, CASE),
        ("Case_Attachments/a/b/c", Kind.ATTACHMENT, CASE),
        ("elsewhere/documentbackDoc_Back_1_blob.jpg", BACK, DocumentSource.OTHER),
        ("notes.txt", Kind.OTHER, DocumentSource.OTHER),
        ("user_uploaded", Kind.OTHER, DocumentSource.OTHER),
        ("../../etc/passwd", Kind.OTHER, DocumentSource.OTHER),
        ("\0", Kind.OTHER, DocumentSource.OTHER),
        ("", Kind.OTHER, DocumentSource.OTHER),
    ],
)
def test_the_name_of_a_document_decides_its_kind_and_source(name: str, kind: Kind, source: DocumentSource) -> None:
    document = identify(member(name))

    assert (document.kind, document.source) == (kind, source)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("user_uploaded/new/Bank_Statement-1.PDF", SECONDARY),
        ("bank_statement-2.pdf", SECONDARY),
        ("bank_statement/a.pdf", Kind.OTHER),
        ("user_uploaded/liveness/7.jpg", SELFIE),
        ("user_uploaded\\liveness\\a\\7.jpg", SELFIE),
        ("elsewhere/user_uploaded/liveness/7.jpg", Kind.OTHER),
        ("user_uploaded/liveness/front.jpg", FRONT),
        ("case_attachments/bank_statement.pdf", Kind.ATTACHMENT),
        ("user_uploaded/secondary/capture7", SECONDARY),
        ("user_uploaded/capture7", BACK),
        ("user_uploaded/capture17", Kind.OTHER),
    ],
)
def test_patterns_of_the_settings_are_tried_after_the_built_in_ones(name: str, kind: Kind) -> None:
    texts = (
        "secondary_document:Bank_*",
        "selfie: user_uploaded/liveness/*.jpg",
        "document_back:capture?",
        "selfie:capture?",
    )
    assert identify(member(name), [KindPattern.of(text) for text in texts]).kind == kind


@pytest.mark.parametrize(
    ("name", "in_header", "kind", "conflict"),
    [
        ("user_uploaded/back.jpg", "user_uploaded/front.jpg", Kind.OTHER, ("user_uploaded/front.jpg",)),
        ("user_uploaded/back.jpg", "user_uploaded/x.jpg", Kind.OTHER, ("user_uploaded/x.jpg",)),
        ("case_attachments/ü.pdf", "case_attachments/_.pdf", Kind.ATTACHMENT, ()),
        ("user_uploaded/ü/front.jpg", "user_uploaded/_/front.jpg", FRONT, ()),
    ],
)
def test_the_kind_is_other_if_the_name_and_the_header_name_give_different_kinds(
    name: str, in_header: str, kind: Kind, conflict: tuple[str, ...]
) -> None:
    found = identify(replace(member(name), header_name=in_header, name_encoding="unicode-path"))
    assert (found.name, found.kind, found.name_conflict) == (name, kind, conflict)
    assert found.name_encoding == "unicode-path"


def test_the_kind_is_other_if_the_names_of_a_member_contradict_each_other() -> None:
    found = identify(replace(member("user_uploaded/front.jpg"), other_names=("a", "b")))
    assert (found.name, found.kind, found.name_conflict) == ("user_uploaded/front.jpg", Kind.OTHER, ("a", "b"))


def test_a_long_name_is_matched_quickly() -> None:
    pattern = KindPattern.of("selfie:" + "a*" * 90 + "b")
    assert identify(member("a" * 60_000), [pattern]).kind == Kind.OTHER


def test_the_settings_list_every_kind() -> None:
    assert tuple(Kind) == KINDS


def test_a_document_has_the_fields_of_its_member_and_its_kind_and_media_type() -> None:
    original = member("user_uploaded/front.jpg", image("JPEG"))

    assert identify(original) == Document(
        name=original.name,
        kind=FRONT,
        source=USER,
        media_type="image/jpeg",
        extension="jpg",
        data=original.data,
        sha256=original.sha256,
        size=original.size,
        modified=original.modified,
        name_mismatch=None,
    )


CONTENTS = [
    (image("JPEG"), "image/jpeg", "jpg"),
    (image("PNG"), "image/png", "png"),
    (image("WEBP"), "image/webp", "webp"),
    (image("TIFF"), "image/tiff", "tif"),
    (b"MM\0*\0\0\0\x08" + bytes(20), "image/tiff", "tif"),
    (image("BMP"), "image/bmp", "bmp"),
    (image("GIF"), "image/gif", "gif"),
    (iso_media(b"heic", b"mif1", b"heic"), "image/heic", "heic"),
    (iso_media(b"mif1", b"mif1", b"heix"), "image/heic", "heic"),
    (iso_media(b"avif", b"mif1", b"avif"), "image/avif", "avif"),
    (iso_media(b"mif1", b"avif"), "image/avif", "avif"),
    (iso_media(b"isom", b"isom", b"mp41"), "video/mp4", "mp4"),
    (iso_media(b"mp42"), "video/mp4", "mp4"),
    (iso_media(b"qt  "), "video/quicktime", "mov"),
    (iso_media(b"zzzz"), UNKNOWN, "bin"),
    (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", "application/pdf", "pdf"),
    (b"%PDF-1.4\n1 0 obj\n", "application/pdf", "pdf"),
    (b"{\\rtf1 text}", "application/rtf", "rtf"),
    (zip_of({"a.txt": b"a"}), "application/zip", "zip"),
    (zip_of({}), "application/zip", "zip"),
    (zip_of({"word/a.txt": b"a"}), "application/zip", "zip"),
    (zip_of({"[Content_Types].xml": b"", "word/a.xml": b""})[:-1], "application/zip", "zip"),
    (zip_of({"[Content_Types].xml": b"", "_rels/.rels": b"", "word/document.xml": b""}), WORD, "docx"),
    (zip_of({"word/document.xml": b"", "media": bytes(9000), "[Content_Types].xml": b""}), WORD, "docx"),
    (zip_of({"xl/workbook.xml": b"", "[Content_Types].xml": b""}), EXCEL, "xlsx"),
    (b"plain text\r\n\twith tabs", "text/plain", "txt"),
    ("Zürich, 東京, 🙂".encode(), "text/plain", "txt"),
    (b"\xef\xbb\xbfwith a mark", "text/plain", "txt"),
    (b"BMW, GIFT cards and MZ are words", "text/plain", "txt"),
    (b"GIFT", "text/plain", "txt"),
    ("é".encode() * 65_536, "text/plain", "txt"),
    (b"x" + "é".encode() * 65_536, "text/plain", "txt"),
    (b"a" * 100_000 + b"\x81", UNKNOWN, "bin"),
    (b"a" * 100_000 + b"\0", UNKNOWN, "bin"),
    ("cut in a character: é".encode()[:-1], "text/plain", "txt"),
    ("Latin-1: é".encode("latin-1"), "text/plain", "txt"),
    (b"", UNKNOWN, "bin"),
    (b"\0", UNKNOWN, "bin"),
    (b"\x7fELF" + bytes(100), UNKNOWN, "bin"),
]


@pytest.mark.parametrize(("data", "media_type", "extension"), CONTENTS)
def test_the_content_decides_the_media_type_and_the_extension(data: bytes, media_type: str, extension: str) -> None:
    document = identify(member("misleading.exe", data))

    assert (document.media_type, document.extension) == (media_type, extension)


def test_an_animated_png_is_a_png() -> None:
    file = io.BytesIO()
    frames = [Image.new("RGB", (8, 8), color) for color in ("teal", "red")]
    frames[0].save(file, "PNG", save_all=True, append_images=frames[1:])

    assert media_type_of(file.getvalue()) == "image/png"


@pytest.fixture
def mapped() -> Iterator[mmap.mmap]:
    with tempfile.TemporaryFile() as file:
        file.write(zip_of({"xl/workbook.xml": b"", "[Content_Types].xml": b""}))
        file.flush()
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            yield data


def test_a_mapped_document_is_identified_by_its_content_too(mapped: mmap.mmap) -> None:
    document = identify(member("case_attachments/list.xlsx", mapped))

    assert (document.media_type, document.data is mapped) == (EXCEL, True)


class SliceRecorder(bytes):
    """Bytes that record the longest slice taken of them."""

    longest = 0

    def __getitem__(self, key: slice) -> bytes:  # type: ignore[override]
        part = super().__getitem__(key)
        self.longest = max(self.longest, len(part))
        return part


@pytest.mark.parametrize("head", [b"\xff\xd8\xff", b"text", b"\0\0\0\x08ftyp"])
def test_a_large_document_is_never_copied_whole(head: bytes) -> None:
    data = SliceRecorder(head + b"a" * 1_000_000)

    media_type_of(data)

    assert 0 < data.longest <= 65_536


@pytest.mark.parametrize(
    ("name", "data", "promised"),
    [
        ("a.jpg", image("JPEG"), None),
        ("a.JPEG", image("JPEG"), None),
        ("a.jpg", image("PNG"), "image/jpeg"),
        ("a.jpg", b"\0", "image/jpeg"),
        ("a.jpg", b"<html>", "image/jpeg"),
        ("a.pdf", image("PNG"), "application/pdf"),
        ("a.docx", zip_of({"a": b""}), WORD),
        ("a.tiff", image("TIFF"), None),
        ("a.csv", b"a;b", None),
        ("a.csv", image("PNG"), "text/plain"),
        ("a.heif", iso_media(b"heic"), None),
        ("a.unheard-of", image("PNG"), None),
        ("a.bin", image("PNG"), None),
        ("front", image("PNG"), None),
        ("jpg", image("PNG"), None),
        ("folder.jpg/front", image("PNG"), None),
        ("", b"", None),
    ],
)
def test_a_name_that_promises_another_media_type_is_recorded(name: str, data: bytes, promised: str | None) -> None:
    assert identify(member(name, data)).name_mismatch == promised


@given(st.text(), st.binary() | st.sampled_from([data for data, _, _ in CONTENTS]))
def test_any_content_becomes_a_document_with_a_safe_extension(name: str, data: bytes) -> None:
    document = identify(member(name, data))

    assert re.fullmatch("[a-z0-9]+", document.extension)
    assert (document.name, document.data) == (name, data)


@given(st.sampled_from([data for data, _, _ in CONTENTS]), st.integers(0, 300), st.binary(max_size=20))
def test_damaged_content_still_has_a_media_type(data: bytes, at: int, other: bytes) -> None:
    assert media_type_of(data[:at] + other + data[at + len(other) :])


@pytest.mark.parametrize("step", [b"P*M\x18\0\0\0\0", b"\x89PNG\r\n\x1a\n", b"\0\0\0\x08ftyp", b"PK\3\4"])
def test_content_that_only_repeats_a_signature_has_a_media_type(step: bytes) -> None:
    assert media_type_of(step * 100_000)


def test_a_bundle_is_identified_member_by_member() -> None:
    files = {"user_uploaded/document_verification/front": image("JPEG"), "case_attachments/a.pdf": b"%PDF-1.4"}

    documents = [identify(one) for one in unpack(zip_of(files), Limits()).members]

    assert [(one.kind, one.extension) for one in documents] == [(FRONT, "jpg"), (Kind.ATTACHMENT, "pdf")]
