"""Detect the media type of a document by its signature, never by its name.

``filetype`` knows most signatures. This module adds the formats that it does not know or cannot tell apart. Content
that matches no signature is ``application/octet-stream``.
"""

import re
from uuid import UUID

import filetype

from tasks.bundle import ole_directory, plain_text
from tasks.bundle.zip import BadZip
from tasks.bundle.zip.check import check
from tasks.memory.buffer_pool import Buffer

_UNKNOWN = "application/octet-stream"
_NO_EXTENSION = "bin"
_TEXT = "text/plain"
_PDF = "application/pdf"
_RTF = "application/rtf"
_ZIP = "application/zip"
_OLE = "application/x-ole-storage"
_ANIMATED = "image/apng"
_OFFICE = "application/vnd.openxmlformats-officedocument."
_OPEN = "application/vnd.oasis.opendocument."

# The supported media types and their extensions. Fonts, programs and similar files count as unknown content.
# Installers are detected only to keep them apart from Office files, and get the extension of unknown content.
_EXTENSIONS = {
    "image/jpeg": "jpg",
    "image/png": "png",
    "image/webp": "webp",
    "image/heic": "heic",
    "image/heif": "heif",
    "image/avif": "avif",
    "image/jxl": "jxl",
    "image/jp2": "jp2",
    "image/jpx": "jpx",
    "image/jpm": "jpm",
    "image/jph": "jph",
    "image/x-jp2-codestream": "j2c",
    "image/x-canon-cr3": "cr3",
    "image/tiff": "tif",
    "image/bmp": "bmp",
    "image/gif": "gif",
    _PDF: "pdf",
    f"{_OFFICE}wordprocessingml.document": "docx",
    f"{_OFFICE}spreadsheetml.sheet": "xlsx",
    f"{_OFFICE}presentationml.presentation": "pptx",
    f"{_OPEN}text": "odt",
    f"{_OPEN}spreadsheet": "ods",
    f"{_OPEN}presentation": "odp",
    "application/msword": "doc",
    "application/vnd.ms-excel": "xls",
    "application/vnd.ms-powerpoint": "ppt",
    "application/vnd.ms-outlook": "msg",
    "application/vnd.ms-publisher": "pub",
    "application/vnd.visio": "vsd",
    _RTF: "rtf",
    "video/mp4": "mp4",
    "video/quicktime": "mov",
    "video/webm": "webm",
    "video/x-matroska": "mkv",
    "audio/mp4": "m4a",
    "audio/mpeg": "mp3",
    "audio/x-wav": "wav",
    "application/gzip": "gz",
    "application/x-7z-compressed": "7z",
    "application/x-rar-compressed": "rar",
    "application/x-tar": "tar",
    _ZIP: "zip",
    _TEXT: "txt",
    "application/x-msi": _NO_EXTENSION,
    _OLE: _NO_EXTENSION,
    _UNKNOWN: _NO_EXTENSION,
}

# Content cannot distinguish one text format from another, so each of their extensions promises only plain text.
_PROMISES = {
    **{extension: media_type for media_type, extension in _EXTENSIONS.items() if extension != _NO_EXTENSION},
    **dict.fromkeys(("jpeg", "jpe", "jfif"), "image/jpeg"),
    "tiff": "image/tiff",
    "hif": "image/heif",
    "jpf": "image/jpx",
    **dict.fromkeys(("j2k", "jpc"), "image/x-jp2-codestream"),
    "m4v": "video/mp4",
    **dict.fromkeys(("csv", "json", "log", "md", "xml"), _TEXT),
}

# Brands of ISO/IEC 14496-12, the most specific group first. A specific brand counts at any position in the file's
# list, because an image may begin with the brand of the base format, and a file of any brand may list that brand.
_BRANDS = (
    {
        **dict.fromkeys((b"avif", b"avis"), "image/avif"),
        **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"), "image/heic"),
        b"crx ": "image/x-canon-cr3",
        b"jxl ": "image/jxl",
        b"jp2 ": "image/jp2",
        b"jpx ": "image/jpx",
        b"jpm ": "image/jpm",
        b"jph ": "image/jph",
    },
    dict.fromkeys((b"mif1", b"mif2", b"msf1", b"miaf"), "image/heif"),
    {
        **dict.fromkeys((b"isom", b"iso2", b"iso4", b"iso5", b"iso6", b"avc1", b"mp41", b"mp42"), "video/mp4"),
        **dict.fromkeys((b"M4V ", b"MSNV", b"dash"), "video/mp4"),
        b"M4A ": "audio/mp4",
        b"qt  ": "video/quicktime",
    },
)

# Signatures that `filetype` does not know, or knows only in part. In JPEG 2000 and JPEG XL, a box precedes `ftyp`.
_JPEG_BOXES = {
    b"\0\0\0\x0cjP  \r\n\x87\n": "image/jp2",
    b"\0\0\0\x0cJXL \r\n\x87\n": "image/jxl",
}
_SIGNATURES = {
    b"\xff\x4f\xff\x51": "image/x-jp2-codestream",
    b"\xff\x0a": "image/jxl",
    b"II+\0\x08\0\0\0": "image/tiff",
    b"MM\0+\0\x08\0\0": "image/tiff",
}
# RFC 8794: the element DocType, a length of 1 to 8 bytes, then the type.
_EBML = re.compile(rb"\x1a\x45\xdf\xa3.*?\x42\x82.{1,8}?(webm|matroska)", re.DOTALL)
_EBML_TYPES = {b"webm": "video/webm", b"matroska": "video/x-matroska"}

_OFFICE_FOLDERS = {
    b"word": f"{_OFFICE}wordprocessingml.document",
    b"xl": f"{_OFFICE}spreadsheetml.sheet",
    b"ppt": f"{_OFFICE}presentationml.presentation",
}
_OFFICE_MARK = b"[Content_Types].xml"
_MAX_OFFICE_PARTS = 10_000
# Document formats based on ZIP. Some writers put the parts in an order that `filetype` does not expect.
_PACKAGES = frozenset((*_OFFICE_FOLDERS.values(), *(each for each in _EXTENSIONS if each.startswith(_OPEN))))
_PACKAGE_MARKS = frozenset((_OFFICE_MARK, b"mimetype", b"content.xml"))

_OLE_NAMES = {
    "worddocument": "application/msword",
    "workbook": "application/vnd.ms-excel",
    "book": "application/vnd.ms-excel",
    "powerpoint document": "application/vnd.ms-powerpoint",
    "__properties_version1.0": "application/vnd.ms-outlook",
    "visiodocument": "application/vnd.visio",
    "quill": "application/vnd.ms-publisher",
}
_INSTALLER = UUID("000c1084-0000-0000-c000-000000000046")

# Types that content may have besides the detected one. Office encrypts docx, xlsx and pptx into OLE storage, which
# hides the type. Content that matches no signature may have a type with several signatures, or with none.
_OLE_TYPES = frozenset((*_OLE_NAMES.values(), *_OFFICE_FOLDERS.values()))
_MAY_BE = {
    "image/heic": {"image/heif"},
    "image/avif": {"image/heif"},
    "image/heif": {"image/heic", "image/avif"},
    "image/jpx": {"image/jp2"},
    "video/mp4": {"audio/mp4"},
    _OLE: _OLE_TYPES,
}
_OFTEN_UNKNOWN = frozenset(
    {
        _TEXT,
        "application/msword",
        "application/vnd.ms-excel",
        "application/x-tar",
        "audio/mp4",
        "audio/mpeg",
        "audio/x-wav",
        "video/mp4",
        "video/quicktime",
    }
)

# Matchers are listed by type, because some are unsafe: Zstandard's recurses as deep as a hostile file demands, and
# others match only two letters. Types that this module detects better are left out.
_DETECTED_HERE = {each for brands in _BRANDS for each in brands.values()} | {_PDF, *_EBML_TYPES.values(), *_OLE_TYPES}
_MATCHERS = [matcher for matcher in filetype.types if matcher.mime in {_ANIMATED, *_EXTENSIONS} - _DETECTED_HERE]
# These signatures consist of letters only, so a text may begin with them: "BMW", "GIFT", "ID3".
_MAY_BE_TEXT = frozenset({_UNKNOWN, "image/bmp", "image/gif", "audio/mpeg"})

_HEAD = 8192  # bytes; `filetype` reads no more than this
_PDF_MARK = b"%PDF-"
_PDF_WITHIN = 1024  # bytes (ISO 32000, annex on implementation limits)


def media_type_of(data: Buffer) -> str:
    """Return the media type of some content.

    A text that happens to begin like an image counts as text. PDF and RTF consist of text, so their signatures decide.
    """
    head = bytes(data[:_HEAD])
    found = _by_signature(data, head)
    if found == _RTF:
        return found
    is_text = plain_text.is_utf8(data)
    if (is_text or found == _UNKNOWN) and head.find(_PDF_MARK, 0, _PDF_WITHIN) >= 0:
        return _PDF
    if is_text or (found in _MAY_BE_TEXT and plain_text.may_be_text(data)):
        return _TEXT
    return found


def _by_signature(data: Buffer, head: bytes) -> str:
    if media_type := _by_brand(head) or _by_own_signature(head):
        return media_type
    if head.startswith(ole_directory.SIGNATURE):
        return _by_ole_directory(data)
    matcher = filetype.match(head, _MATCHERS)
    found: str = matcher.mime if matcher else _UNKNOWN
    if head.startswith(b"PK"):
        return _office(data) or found
    return "image/png" if found == _ANIMATED else found


def _by_brand(head: bytes) -> str | None:
    """Return the media type of an ISO base media file from all its brands, the major brand first."""
    box = _JPEG_BOXES.get(head[:12])
    at = 12 if box else 0
    if head[at + 4 : at + 8] != b"ftyp":
        return box
    end = at + int.from_bytes(head[at : at + 4], "big")
    brands = [head[at + 8 : at + 12], *(head[each : each + 4] for each in range(at + 16, min(end, len(head)), 4))]
    return next((known[brand] for known in _BRANDS for brand in brands if brand in known), box)


def _by_own_signature(head: bytes) -> str | None:
    if ebml := _EBML.match(head):
        return _EBML_TYPES[ebml[1]]
    return next((media_type for begin, media_type in _SIGNATURES.items() if head.startswith(begin)), None)


def _by_ole_directory(data: Buffer) -> str:
    root = ole_directory.read_root(data)
    if root is None:
        return _OLE
    if root.class_id == _INSTALLER:
        return "application/x-msi"
    return next((media_type for name, media_type in _OLE_NAMES.items() if name in root.names), _OLE)


def _office(data: Buffer) -> str | None:
    """Return the media type of an Office document from its folders, in any order."""
    names = _top_names(data) or frozenset()
    if _OFFICE_MARK not in names:
        return None
    return next((_OFFICE_FOLDERS[name] for name in _OFFICE_FOLDERS if name in names), None)


def _top_names(data: Buffer) -> frozenset[bytes] | None:
    """Return the top-level folders and files of a ZIP; None if it cannot be read."""
    try:
        parts = check(data, max_entries=_MAX_OFFICE_PARTS).entries
    except BadZip:
        return None
    return frozenset(part.name.partition(b"/")[0] for part in parts)


def extension_of(media_type: str) -> str:
    """Return the extension of a supported media type, in lower-case letters and digits."""
    return _EXTENSIONS[media_type]


def is_known(media_type: str) -> bool:
    """Return whether a media type is supported and has an extension other than that of unknown content."""
    return _EXTENSIONS.get(media_type, _NO_EXTENSION) != _NO_EXTENSION


def media_type_named(extension: str) -> str | None:
    """Return the media type that a name's extension promises; None if the extension is unknown."""
    return _PROMISES.get(extension)


def may_be(media_type: str, promised: str) -> bool:
    """Return whether content with a detected media type may have the type that its name promises."""
    return promised == media_type or promised in _MAY_BE.get(media_type, ())


def is_contradicted(promised: str, media_type: str, data: Buffer) -> bool:
    """Return whether content cannot have the media type that its name promises; a guess contradicts nothing.

    Args:
        media_type: the media type detected from the content.
    """
    if may_be(media_type, promised) or (media_type == _UNKNOWN and promised in _OFTEN_UNKNOWN):
        return False
    if media_type == _PDF and promised == _TEXT:
        # A text about PDF may contain the signature, but does not begin with it.
        return bytes(data[:5]) == _PDF_MARK
    if media_type == _ZIP and promised in _PACKAGES:
        names = _top_names(data)
        return names is not None and _PACKAGE_MARKS.isdisjoint(names)
    return True
