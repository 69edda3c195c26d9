"""What a content is: its media type, by its signature and never by its name.

``filetype`` knows the signatures; what it does not tell apart is told here. What no signature fits is
``application/octet-stream``.
"""

import codecs

import filetype

from tasks.bundle import zip_check
from tasks.errors import BadBundle
from tasks.memory.buffer_pool import Buffer

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
_PROMISES = {
    **{extension: media_type for media_type, extension in _EXTENSIONS.items() if media_type != _UNKNOWN},
    **dict.fromkeys(("jpeg", "jpe", "jfif"), "image/jpeg"),
    "tiff": "image/tiff",
    "heif": "image/heic",
    "m4v": "video/mp4",
    **dict.fromkeys(("csv", "json", "log", "md", "xml"), _TEXT),
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
    head = bytes(data[:_HEAD])
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
        parts = zip_check.check(data, max_entries=_MAX_OFFICE_PARTS)
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
            piece = bytes(data[at : at + _PIECE])
            decoder.decode(piece, final=at + _PIECE >= len(data))
            if len(piece.translate(None, _CONTROLS)) < len(piece):
                return False
    except UnicodeDecodeError:
        return False
    return len(data) > 0


def extension_of(media_type: str) -> str:
    """Return the extension that belongs to a media type of ours; lower-case letters and digits."""
    return _EXTENSIONS[media_type]


def media_type_named(extension: str) -> str | None:
    """Return the media type that a name's extension promises, or None where we know no such promise."""
    return _PROMISES.get(extension)
