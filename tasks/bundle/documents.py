"""Identify each member of a bundle: its kind by name and folder, its media type by content.

The patterns come from the RiskOS documentation ("Image Retrieval") and from real bundles. RiskOS does not document
the folder of secondary documents (bank statements, utility bills), so their pattern is a guess. No member is ever
dropped. A member that matches no pattern gets the kind ``other``.
"""

import enum
import fnmatch
import re
from collections.abc import Sequence
from dataclasses import dataclass

from tasks.bundle.media_type import extension_of, is_contradicted, media_type_named, media_type_of
from tasks.bundle.zip import Member
from tasks.memory.buffer_pool import Buffer


class Kind(enum.StrEnum):
    """The kind of a document. The values are part of the archive format."""

    DOCUMENT_FRONT = "document_front"
    DOCUMENT_BACK = "document_back"
    SELFIE = "selfie"
    SECONDARY_DOCUMENT = "secondary_document"
    ATTACHMENT = "attachment"
    OTHER = "other"


class DocumentSource(enum.StrEnum):
    """The origin of a document. The values are part of the archive format."""

    USER_UPLOADED = "user_uploaded"
    CASE_ATTACHMENTS = "case_attachments"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Document:
    """An identified member of a bundle.

    Attributes:
        name: the name in the bundle; never part of a key or a path.
        kind: the kind, by name and folder.
        source: the origin, by folder.
        media_type: the media type, by content.
        extension: the extension of its key; it follows the media type, unless the same bytes are already stored with
            another one.
        data: the content, in memory or mapped.
        sha256: the SHA-256 of the content, 64 hex digits.
        size: the size of the content, in bytes.
        modified: the local time in the bundle, without a zone; None if the bundle gives no valid time.
        name_mismatch: the media type that the name promises, if the content certainly has another one.
        name_encoding: how the name was decoded; None for ASCII.
        name_conflict: the names that other readers give the member, if it is unclear which name is right.
    """

    name: str
    kind: Kind
    source: DocumentSource
    media_type: str
    extension: str
    data: Buffer
    sha256: str
    size: int
    modified: str | None
    name_mismatch: str | None
    name_encoding: str | None = None
    name_conflict: tuple[str, ...] = ()


# The capture app names the side, as in `Doc_Front_2_`, between the document type and the capture method.
# A passport has a front only. The sample bundle in RiskOS's API reference has a folder with a `driver's_license`
# next to front and back. It is an identity document, but its name does not give the side.
_PATTERNS = (
    (Kind.DOCUMENT_BACK, re.compile(r"[a-z]*doc_back_[0-9]|(document)?back\Z")),
    (Kind.SELFIE, re.compile(r"[a-z]*doc_selfie_[0-9]|(selfie|self_?portrait)\Z")),
    (
        Kind.DOCUMENT_FRONT,
        re.compile(r"[a-z]*doc_front_[0-9]|((document)?front|driver['\u2019]?s?[_ ]licen[cs]e|passport)\Z"),
    ),
)

_SECONDARY = "secondary"


@dataclass(frozen=True, slots=True)
class KindPattern:
    """A pattern for the names of documents of one kind.

    Attributes:
        kind: the kind of the documents that match.
        regex: the pattern, for names in lower case.
        is_path: whether the pattern applies to the whole name instead of the part after the last slash.
    """

    kind: Kind
    regex: re.Pattern[str]
    is_path: bool

    @classmethod
    def of(cls, text: str) -> "KindPattern":
        """Parse one item of ``DOCV_KIND_PATTERNS``, in the form ``kind:glob``."""
        kind, _, glob = (part.strip() for part in text.partition(":"))
        return cls(Kind(kind), re.compile(fnmatch.translate(glob.lower())), "/" in glob)


_FOLDERS = {source.value: source for source in (DocumentSource.USER_UPLOADED, DocumentSource.CASE_ATTACHMENTS)}


def identify(member: Member, patterns: Sequence[KindPattern] = ()) -> Document:
    """Return the document for a member; its kind is ``other`` if its names contradict each other.

    Args:
        patterns: patterns to try after the built-in ones, in this order.
    """
    source = source_of(member.name)
    kind, conflict = _kind_of(member.name, source, patterns), member.other_names
    if member.header_name is not None:
        in_header = _kind_of(member.header_name, source_of(member.header_name), patterns)
        conflict = conflict or ((member.header_name,) if kind is not in_header else ())
    media_type = media_type_of(member.data)
    _, dot, extension = _parts(member.name)[-1].rpartition(".")
    promised = media_type_named(extension) if dot else None
    return Document(
        name=member.name,
        kind=Kind.OTHER if conflict else kind,
        source=source,
        media_type=media_type,
        extension=extension_of(media_type),
        data=member.data,
        sha256=member.sha256,
        size=member.size,
        modified=member.modified,
        name_mismatch=promised if promised and is_contradicted(promised, media_type, member.data) else None,
        name_encoding=member.name_encoding,
        name_conflict=conflict,
    )


def _parts(name: str) -> list[str]:
    """Return the folders and the file name in lower case; some writers separate them with backslashes."""
    return [part for part in name.lower().replace("\\", "/").split("/") if part not in {"", "."}] or [""]


def source_of(name: str) -> DocumentSource:
    """Return the origin of a document with this name."""
    *folders, _ = _parts(name)
    for folder in folders:
        if folder in _FOLDERS:
            return _FOLDERS[folder]
    return DocumentSource.USER_UPLOADED if not folders and _kind_by_file_name(name) else DocumentSource.OTHER


def _kind_of(name: str, source: DocumentSource, patterns: Sequence[KindPattern]) -> Kind:
    if source is DocumentSource.CASE_ATTACHMENTS:
        return Kind.ATTACHMENT
    *folders, file = _parts(name)
    uploaded = DocumentSource.USER_UPLOADED.value
    below = folders[folders.index(uploaded) + 1 :] if uploaded in folders else ()
    if any(_SECONDARY in folder for folder in below):
        return Kind.SECONDARY_DOCUMENT
    if kind := _kind_by_file_name(name):
        return kind
    whole = "/".join((*folders, file))
    return next((each.kind for each in patterns if each.regex.match(whole if each.is_path else file)), Kind.OTHER)


def _kind_by_file_name(name: str) -> Kind | None:
    stem = _parts(name)[-1].partition(".")[0]
    return next((kind for kind, pattern in _PATTERNS if pattern.match(stem)), None)
