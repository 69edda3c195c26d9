"""Extensions for copies of documents: a double click on one must not run anything."""

from tasks.bundle import media_type as media_types
from tasks.storage.manifest_records import DocumentRecord

_UNKNOWN = "bin"
_INERT = frozenset(
    [
        "avif",
        "cr2",
        "cr3",
        "dcm",
        "dng",
        "heic",
        "heif",
        "hif",
        "j2c",
        "j2k",
        "jls",
        "jp2",
        "jpc",
        "jpf",
        "jph",
        "jpm",
        "jpx",
        "jxl",
        "nef",
        "orf",
        "psd",
        "raf",
        "rw2",
        "tif",
        "tiff",
        "wsq",
        "3gp",
        "3g2",
        "aac",
        "amr",
        "avi",
        "flac",
        "m4a",
        "mkv",
        "mov",
        "mp3",
        "mp4",
        "mpeg",
        "mpg",
        "oga",
        "ogg",
        "ogv",
        "opus",
        "wav",
        "webm",
        "bin",
        "csv",
        "dat",
        "json",
        "log",
        "tsv",
        "txt",
    ]
)
"""Extensions that a document of an unknown type may keep: images, sound, video and data, which run nothing."""


def extension_of(document: DocumentRecord) -> str:
    """Return the extension for a document's media type, or that of its key if this version does not know the type.

    A key may have any extension. A dangerous one is not used.
    """
    try:
        return media_types.extension_of(document.media_type)
    except KeyError:
        extension = document.key.rpartition(".")[2].lower()
        return extension if extension in _INERT else _UNKNOWN


def may_keep(extension: str, media_type: str) -> bool:
    """Return whether a copy of a document of a media type may keep the extension of its name in the bundle."""
    if not extension.isascii():
        return False
    promised = media_types.media_type_named(extension.lower())
    if promised and media_types.may_be(media_type, promised):
        return True
    return extension.lower() in _INERT and not media_types.is_known(media_type)
