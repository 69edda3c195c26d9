"""What a member is: its kind by name and folder, its media type by content.

Names as they were seen: RiskOS documentation, "Image Retrieval", and the field. Nothing is ever dropped:
what fits no pattern is of kind ``other``, what no signature fits is ``application/octet-stream``.
"""

import codecs
import enum
import re
from dataclasses import dataclass

import filetype

from tasks import structure
from tasks.errors import BadBundle
from tasks.structure import Buffer
from tasks.unpack import Member


class Kind(enum.StrEnum):
    """What a document shows. The values are part of the archive's format."""

    DOCUMENT_FRONT = "document_front"
    DOCUMENT_BACK = "document_back"
    SELFIE = "selfie"
    ATTACHMENT = "attachment"
    OTHER = "other"


class Source(enum.StrEnum):
    """Who put a document there. The values are part of the archive's format."""

    USER_UPLOADED = "user_uploaded"
    CASE_ATTACHMENTS = "case_attachments"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Document:
    """A member of a bundle and what it is.

    Attributes:
        name: as it stands in the bundle; never part of a key or a path.
        kind: what it shows.
        source: who put it there.
        media_type: of the content, by the content.
        extension: belongs to the media type; lower-case letters and digits.
        data: the content, in memory or mapped.
        sha256: of the content, 64 hex digits.
        size: of the content, in bytes.
        modified: local time without zone, as the bundle has it; ``None`` where it has none.
        name_mismatch: the media type that the name promised, where the content is something else.
    """

    name: str
    kind: Kind
    source: Source
    media_type: str
    extension: str
    data: Buffer
    sha256: str
    size: int
    modified: str | None
    name_mismatch: str | None


# The names of the capture app carry what was captured, `Doc_Front_2_`, after the type of document and before
# how it was made. A passport has a front only. The sample bundle of RiskOS's API reference has a folder with
# a `driver's_license` beside front and back; it is an identity document, and its side is not said.
_PATTERNS = (
    (Kind.DOCUMENT_BACK, re.compile(r"[a-z]*doc_back_[0-9]|(document)?back\Z")),
    (Kind.SELFIE, re.compile(r"[a-z]*doc_selfie_[0-9]|(selfie|self_?portrait)\Z")),
    (
        Kind.DOCUMENT_FRONT,
        re.compile(r"[a-z]*doc_front_[0-9]|((document)?front|driver['\u2019]?s?[_ ]licen[cs]e|passport)\Z"),
    ),
)

_FOLDERS = {source.value: source for source in (Source.USER_UPLOADED, Source.CASE_ATTACHMENTS)}

_UNKNOWN = "application/octet-stream"
_TEXT = "text/plain"
_ZIP = "application/zip"
_ANIMATED = "image/apng"
_OFFICE = "application/vnd.openxmlformats-officedocument."
_OPEN = "application/vnd.oasis.opendocument."

# The media types we vouch for, and their extensions. Fonts, programs and the like are bytes to us.
_EXTENSIONS = {
    "image/jpeg": "jpg",
    "image/png": "png",
    "image/webp": "webp",
    "image/heic": "heic",
    "image/avif": "avif",
    "image/tiff": "tif",
    "image/bmp": "bmp",
    "image/gif": "gif",
    "application/pdf": "pdf",
    f"{_OFFICE}wordprocessingml.document": "docx",
    f"{_OFFICE}spreadsheetml.sheet": "xlsx",
    f"{_OFFICE}presentationml.presentation": "pptx",
    f"{_OPEN}text": "odt",
    f"{_OPEN}spreadsheet": "ods",
    f"{_OPEN}presentation": "odp",
    "application/msword": "doc",
    "application/vnd.ms-excel": "xls",
    "application/vnd.ms-powerpoint": "ppt",
    "application/rtf": "rtf",
    "video/mp4": "mp4",
    "video/quicktime": "mov",
    "video/webm": "webm",
    "audio/mp4": "m4a",
    "audio/mpeg": "mp3",
    "audio/x-wav": "wav",
    "application/gzip": "gz",
    "application/x-7z-compressed": "7z",
    "application/x-rar-compressed": "rar",
    "application/x-tar": "tar",
    _ZIP: "zip",
    _TEXT: "txt",
    _UNKNOWN: "bin",
}

# Content does not tell one sort of text from another, so all of them promise text and no more.
_PROMISES = {extension: media_type for media_type, extension in _EXTENSIONS.items() if media_type != _UNKNOWN}
_PROMISES |= {
    alias: _PROMISES[extension]
    for extension, aliases in {
        "jpg": ("jpeg", "jpe", "jfif"),
        "tif": ("tiff",),
        "heic": ("heif",),
        "mp4": ("m4v",),
        "txt": ("csv", "json", "log", "md", "xml"),
    }.items()
    for alias in aliases
}

# Of the base format ISO/IEC 14496-12 `filetype` knows one brand of HEIC and few of MP4.
_BRANDS = {
    **dict.fromkeys((b"avif", b"avis"), "image/avif"),
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx"), "image/heic"),
    **dict.fromkeys((b"isom", b"iso2", b"iso4", b"iso5", b"iso6", b"avc1", b"mp41", b"mp42"), "video/mp4"),
    **dict.fromkeys((b"M4V ", b"MSNV", b"dash"), "video/mp4"),
    b"M4A ": "audio/mp4",
    b"qt  ": "video/quicktime",
}

_OFFICE_FOLDERS = {
    b"word": f"{_OFFICE}wordprocessingml.document",
    b"xl": f"{_OFFICE}spreadsheetml.sheet",
    b"ppt": f"{_OFFICE}presentationml.presentation",
}
_MAX_OFFICE_PARTS = 10_000

# Signatures by name, not all there are: that of Zstandard recurses as deep as a hostile file likes, and others
# are two letters. What `_by_brand` and `_office` tell better is left to them.
_MATCHERS = [
    matcher
    for matcher in filetype.types
    if matcher.mime in {_ANIMATED, *_EXTENSIONS} - {*_BRANDS.values(), *_OFFICE_FOLDERS.values()}
]

_HEAD = 8192  # bytes; as much as `filetype` looks at
_PIECE = 1 << 16
_CONTROLS = bytes((set(range(0x20)) - set(b"\t\n\r\f")) | {0x7F})


def identify(member: Member) -> Document:
    """Return the member as the document that it is."""
    source = _source(member.name)
    media_type = media_type_of(member.data)
    promised = _promised(member.name)
    return Document(
        name=member.name,
        kind=_kind(member.name, source),
        source=source,
        media_type=media_type,
        extension=_EXTENSIONS[media_type],
        data=member.data,
        sha256=member.sha256,
        size=member.size,
        modified=member.modified,
        name_mismatch=promised if promised != media_type else None,
    )


def media_type_of(data: Buffer) -> str:
    """Return the media type of a content by its content.

    A text that happens to begin like an image ("BMW", "GIFT") is a text; formats that are made of text, PDF
    and RTF, are told by their signature.
    """
    found = _by_signature(data)
    if found not in {"application/pdf", "application/rtf"} and _is_text(data):
        return _TEXT
    return found


def _by_signature(data: Buffer) -> str:
    head = data[:_HEAD]
    if media_type := _by_brand(head):
        return media_type
    matcher = filetype.match(head, _MATCHERS)
    found: str = matcher.mime if matcher else _UNKNOWN
    if head.startswith(b"PK"):
        return _office(data) or found
    return "image/png" if found == _ANIMATED else found


def _by_brand(head: bytes) -> str | None:
    """Return the media type of an ISO base media file: by its major brand or else the first known one."""
    if head[4:8] != b"ftyp":
        return None
    end = int.from_bytes(head[:4], "big")
    brands = [head[8:12], *(head[at : at + 4] for at in range(16, min(end, len(head)), 4))]
    return next((_BRANDS[brand] for brand in brands if brand in _BRANDS), None)


def _office(data: Buffer) -> str | None:
    """Return the media type of an Office document by the folders in it, in whatever order they stand."""
    try:
        parts = structure.check(data, max_entries=_MAX_OFFICE_PARTS)
    except BadBundle:
        return None
    folders = {part.name.partition(b"/")[0] for part in parts}
    if b"[Content_Types].xml" not in folders:
        return None
    return next((_OFFICE_FOLDERS[folder] for folder in _OFFICE_FOLDERS if folder in folders), None)


def _is_text(data: Buffer) -> bool:
    """Return whether all of it is UTF-8 without control characters; most images are out after one byte."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for at in range(0, len(data), _PIECE):
            piece = data[at : at + _PIECE]
            decoder.decode(piece, final=at + _PIECE >= len(data))
            if len(piece.translate(None, _CONTROLS)) < len(piece):
                return False
    except UnicodeDecodeError:
        return False
    return len(data) > 0


def _parts(name: str) -> list[str]:
    """Return folders and name in lower case; some writers separate them by a backslash."""
    return [part for part in name.lower().replace("\\", "/").split("/") if part not in {"", "."}] or [""]


def _source(name: str) -> Source:
    *folders, _ = _parts(name)
    for folder in folders:
        if folder in _FOLDERS:
            return _FOLDERS[folder]
    return Source.USER_UPLOADED if not folders and _pattern(name) else Source.OTHER


def _kind(name: str, source: Source) -> Kind:
    if source is Source.CASE_ATTACHMENTS:
        return Kind.ATTACHMENT
    return _pattern(name) or Kind.OTHER


def _pattern(name: str) -> Kind | None:
    stem = _parts(name)[-1].partition(".")[0]
    return next((kind for kind, pattern in _PATTERNS if pattern.match(stem)), None)


def _promised(name: str) -> str | None:
    _, dot, extension = _parts(name)[-1].rpartition(".")
    return _PROMISES.get(extension) if dot else None
