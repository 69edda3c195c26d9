"""The media type of a document follows from all of its content. A guess never marks a name as wrong."""

import hashlib
from uuid import UUID

import pytest

from tasks.bundle.documents import identify
from tasks.bundle.media_type import media_type_of
from tasks.bundle.zip import Member
from tests.ole import compound_file
from tests.zips import zip_of

UNKNOWN, TEXT, PDF, OLE = "application/octet-stream", "text/plain", "application/pdf", "application/x-ole-storage"
WORD = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
INSTALLER = UUID("000c1084-0000-0000-c000-000000000046")
JP2_BOX, JXL_BOX = b"\0\0\0\x0cjP  \r\n\x87\n", b"\0\0\0\x0cJXL \r\n\x87\n"
BINARY = bytes(range(256))
UNKNOWN_OLE = compound_file("CONTENTS", "MatOST")
ENCRYPTED = compound_file("EncryptionInfo", "\6DataSpaces", "EncryptedPackage")


def mismatch(name: str, data: bytes) -> str | None:
    """Return the media type that the name of a member wrongly promised."""
    return identify(Member(name, data, hashlib.sha256(data).hexdigest(), len(data), None)).name_mismatch


def brands(*names: str, before: bytes = b"") -> bytes:
    major, *compatible = (name.encode() for name in names)
    body = major + bytes(4) + b"".join(compatible)
    return before + (8 + len(body)).to_bytes(4, "big") + b"ftyp" + body + b"\0\0\0\x08mdat" + BINARY


def ebml(doc_type: bytes, length: bytes | None = None) -> bytes:
    elements = b"\x42\x86\x81\x01\x42\xf7\x81\x01\x42\x82" + (length or bytes([0x80 + len(doc_type)])) + doc_type
    return b"\x1a\x45\xdf\xa3" + bytes([0x80 + len(elements)]) + elements + b"\x18\x53\x80\x67\x01" + b"\xff" * 7


@pytest.mark.parametrize(
    ("data", "media_type"),
    [
        (compound_file("\1CompObj", "1Table", "WordDocument"), "application/msword"),
        (compound_file("WordDocument", nested=("Workbook", "PowerPoint Document")), "application/msword"),
        (compound_file("Workbook"), "application/vnd.ms-excel"),
        (compound_file("Book"), "application/vnd.ms-excel"),
        (compound_file("WORKBOOK"), "application/vnd.ms-excel"),
        (compound_file("Workbook", nested=("WordDocument",)), "application/vnd.ms-excel"),
        (compound_file("Current User", "PowerPoint Document", "Pictures"), "application/vnd.ms-powerpoint"),
        (compound_file("EncryptedSummary", "PowerPoint Document"), "application/vnd.ms-powerpoint"),
        (compound_file("PowerPoint Document", shift=12), "application/vnd.ms-powerpoint"),
        (compound_file("__nameid_version1.0", "__properties_version1.0"), "application/vnd.ms-outlook"),
        (compound_file("Contents", "Quill", "Escher"), "application/vnd.ms-publisher"),
        (compound_file("VisioDocument"), "application/vnd.visio"),
        (compound_file("\u4840\u3f7f\u4164", class_id=INSTALLER), "application/x-msi"),
        (ENCRYPTED, OLE),
        (UNKNOWN_OLE, OLE),
        (compound_file("ObjectPool", nested=("WordDocument",)), OLE),
        (compound_file("WordDocument")[:512], OLE),
        (compound_file("WordDocument")[:8], OLE),
        # Sectors that begin like those of Excel were once mistaken for Excel.
        (compound_file()[:512] + b"\xfd\xff\xff\xff\0\0\0\0" + b"\xff" * 504, OLE),
        (compound_file()[:512] + b"\xec\xa5\xc1\0" + bytes(508), OLE),
    ],
)
def test_the_root_of_an_ole_file_decides_its_media_type(data: bytes, media_type: str) -> None:
    assert media_type_of(data) == media_type


@pytest.mark.parametrize(
    "before",
    [
        b"",
        b"\n",
        b"\r\n",
        b" ",
        b"\xef\xbb\xbf",
        b"\0" * 128,
        b"\x1b%-12345X@PJL ENTER LANGUAGE = PDF\r\n",
        b'--b\r\nContent-Disposition: form-data; name="file"\r\nContent-Type: application/pdf\r\n\r\n',
        b"HTTP/1.1 200 OK\r\nContent-Type: application/pdf\r\n\r\n",
        b" " * 1019,
        b"\xff" * 1019,
    ],
)
@pytest.mark.parametrize("rest", [b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n\0", b"%PDF-1.1\ntrailer\n%%EOF\n"])
def test_a_pdf_may_begin_anywhere_in_the_first_1024_bytes(before: bytes, rest: bytes) -> None:
    assert media_type_of(before + rest) == PDF
    assert mismatch("scan.pdf", before + rest) is None


@pytest.mark.parametrize(
    ("data", "media_type"),
    [
        (b" " * 1020 + b"%PDF-1.4\n", TEXT),
        (b"\0" * 1020 + b"%PDF-1.4\n", UNKNOWN),
        (b"%PDF", TEXT),
        (b"\xff\xd8\xff\xe1" + BINARY + b"%PDF-1.4", "image/jpeg"),
        (zip_of({"a.pdf": b"%PDF-1.4\n"}), "application/zip"),
        (b"{\\rtf1 %PDF-1.4}", "application/rtf"),
        (compound_file("WordDocument")[:512] + b"%PDF-1.4", OLE),
    ],
)
def test_a_file_that_only_contains_the_signature_of_a_pdf_is_not_one(data: bytes, media_type: str) -> None:
    assert media_type_of(data) == media_type


@pytest.mark.parametrize(
    ("data", "media_type"),
    [
        (brands("heic", "mif1", "heic"), "image/heic"),
        (brands("heix", "mif1", "heix"), "image/heic"),
        (brands("hevc", "msf1", "hevc", "isom"), "image/heic"),
        (brands("mif1", "mif1", "miaf", "heic"), "image/heic"),
        (brands("isom", "mif1", "heic"), "image/heic"),
        (brands("mp42", "isom", "heic"), "image/heic"),
        (brands("mif1", "mif1"), "image/heif"),
        (brands("mif1"), "image/heif"),
        (brands("msf1", "msf1", "iso8"), "image/heif"),
        (brands("isom", "mif1"), "image/heif"),
        (brands("avif", "mif1", "miaf", "MA1B"), "image/avif"),
        (brands("avis", "msf1", "iso8", "avif"), "image/avif"),
        (brands("mif1", "avif"), "image/avif"),
        (brands("crx ", "crx ", "isom"), "image/x-canon-cr3"),
        (brands("isom", "crx "), "image/x-canon-cr3"),
        (brands("isom", "isom", "iso2", "avc1", "mp41"), "video/mp4"),
        (brands("mp42", "mp42", "isom"), "video/mp4"),
        (brands("XAVC", "mp42", "iso2"), "video/mp4"),
        (brands("M4V ", "M4V ", "M4A ", "mp42", "isom"), "video/mp4"),
        (brands("M4A ", "M4A ", "mp42", "isom"), "audio/mp4"),
        (brands("qt  ", "qt  "), "video/quicktime"),
        (brands("zzzz"), UNKNOWN),
        (JP2_BOX + bytes(99), "image/jp2"),
        (brands("jp2 ", "jp2 ", before=JP2_BOX), "image/jp2"),
        (brands("jpx ", "jpx ", "jp2 ", before=JP2_BOX), "image/jpx"),
        (brands("jpm ", "jpm ", before=JP2_BOX), "image/jpm"),
        (brands("jph ", "jph ", before=JP2_BOX), "image/jph"),
        (brands("zzzz", before=JP2_BOX), "image/jp2"),
        (b"\xff\x4f\xff\x51\0\x29" + BINARY, "image/x-jp2-codestream"),
        (JXL_BOX + bytes(99), "image/jxl"),
        (brands("jxl ", "jxl ", before=JXL_BOX), "image/jxl"),
        (b"\xff\x0a\xfa\x7f\x01\x90" + BINARY, "image/jxl"),
        (ebml(b"matroska"), "video/x-matroska"),
        (ebml(b"webm"), "video/webm"),
        (ebml(b"matroska", b"\x40\x08"), "video/x-matroska"),
        (ebml(b"webm\0\0", b"\x01\0\0\0\0\0\0\x06"), "video/webm"),
        (ebml(b"other"), UNKNOWN),
        (b"II*\0\x08\0\0\0" + bytes(20), "image/tiff"),
        (b"MM\0*\0\0\0\x08" + bytes(20), "image/tiff"),
        (b"II+\0\x08\0\0\0\x10" + bytes(20), "image/tiff"),
        (b"MM\0+\0\x08\0\0" + bytes(20), "image/tiff"),
        (b"II+\0" + bytes(20), UNKNOWN),
    ],
)
def test_the_whole_header_of_an_image_or_video_decides_its_media_type(data: bytes, media_type: str) -> None:
    assert media_type_of(data) == media_type


GERMAN, RUSSIAN = "Führerschein, gültig bis 2031\r\n", "Водительское удостоверение\r\n"


@pytest.mark.parametrize(
    "data",
    [
        "\ufeffü".encode("utf-16-le"),
        "\ufeffü".encode("utf-16-be"),
        ("\ufeff" + RUSSIAN).encode("utf-16-le"),
        "\ufeff東京 🙂".encode("utf-16-be"),
        GERMAN.encode("utf-16-le"),
        GERMAN.encode("utf-16-be"),
        ("🙂" + "a" * 70_001).encode("utf-16"),
        GERMAN.encode("cp1252"),
        "Führerschein".encode("cp1252"),
        "5 €, „so“, señor".encode("cp1252"),
        "BMW fährt, GIFT für alle".encode("cp1252"),
        ("a" * 70_000 + "ü").encode("cp1252"),
    ],
)
def test_text_in_utf16_and_windows_1252_is_detected(data: bytes) -> None:
    assert media_type_of(data) == TEXT
    assert mismatch("note.txt", data) is None
    assert mismatch("list.csv", data) is None


@pytest.mark.parametrize(
    "data",
    [
        "\ufeff\ud800a".encode("utf-16-le", "surrogatepass"),
        "\ufeffa\0b".encode("utf-16-le"),
        "\ufeffab".encode("utf-16-le")[:-1],
        ("a" * 70_000 + "\1").encode("utf-16"),
        ("a" * 70_000 + "\1").encode("cp1252"),
        RUSSIAN.encode("cp1251"),
        "東京都庁".encode("utf-16-le"),
        b"\x80\xfe\xc1\xee" * 9,
        b"f\xfcr\x81",
        b"f\xfcr\0",
        b"\0\0\0\x01",
        b"a\0\0\0",
    ],
)
def test_other_bytes_are_not_detected_as_text(data: bytes) -> None:
    assert media_type_of(data) == UNKNOWN


@pytest.mark.parametrize(
    ("name", "data", "promised"),
    [
        *((f"a.{each}", UNKNOWN_OLE, None) for each in ("doc", "xls", "ppt", "msg", "pub", "vsd", "msi", "hwp", "bin")),
        *((f"a.{each}", ENCRYPTED, None) for each in ("docx", "xlsx", "pptx", "docm")),
        ("a.jpg", UNKNOWN_OLE, "image/jpeg"),
        ("a.xls", compound_file("WordDocument"), "application/vnd.ms-excel"),
        ("a.docx", compound_file("WordDocument"), WORD),
        ("a.ppt", compound_file("PowerPoint Document"), None),
        ("a.msi", compound_file(class_id=INSTALLER), None),
        ("a.heic", brands("mif1"), None),
        ("a.heif", brands("heic"), None),
        ("a.heif", brands("avif"), None),
        ("a.hif", brands("heix"), None),
        ("a.heic", brands("avif"), "image/heic"),
        ("a.m4a", brands("isom"), None),
        ("a.mp4", brands("M4A "), "video/mp4"),
        ("a.jp2", brands("jpx ", "jp2 ", before=JP2_BOX), None),
        ("a.mp4", brands("zzzz"), None),
        ("a.txt", b"a\0\0\0", None),
        ("a.mp3", BINARY, None),
        ("a.jpg", BINARY, "image/jpeg"),
        ("a.pdf", BINARY, PDF),
        ("a.jp2", BINARY, "image/jp2"),
        ("a.jpg", "für".encode("cp1252"), "image/jpeg"),
        ("about.txt", b"A file that begins with %PDF-1.4 is one.", None),
        ("about.txt", b"%PDF-1.4\n", TEXT),
        ("a.docx", zip_of({"[Content_Types].xml": b"", "word/a.xml": b""})[:-1], None),
        ("a.docx", zip_of({"[Content_Types].xml": b"", "main.xml": b""}), None),
        ("a.odt", zip_of({"content.xml": b"", "mimetype": b""}), None),
        ("a.odt", zip_of({"a.jpg": b""}), "application/vnd.oasis.opendocument.text"),
    ],
)
def test_a_name_is_a_mismatch_only_if_it_is_certainly_wrong(name: str, data: bytes, promised: str | None) -> None:
    assert mismatch(name, data) == promised
