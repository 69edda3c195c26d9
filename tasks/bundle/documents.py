"""What a member is: its kind by name and folder, its media type by content.

Names as they were seen: RiskOS documentation, "Image Retrieval", and the field. Where secondary documents (bank
statements, utility bills) stand is a guess: RiskOS does not document it. Nothing is ever dropped: what fits no pattern
is of kind ``other``.
"""

import enum
import fnmatch
import re
from collections.abc import Sequence
from dataclasses import dataclass

from tasks.bundle.media_type import extension_of, media_type_named, media_type_of
from tasks.bundle.unpack import Member
from tasks.memory.buffer_pool import Buffer


class Kind(enum.StrEnum):
    """What a document shows. The values are part of the archive's format."""

    DOCUMENT_FRONT = "document_front"
    DOCUMENT_BACK = "document_back"
    SELFIE = "selfie"
    SECONDARY_DOCUMENT = "secondary_document"
    ATTACHMENT = "attachment"
    OTHER = "other"


class DocumentSource(enum.StrEnum):
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
    source: DocumentSource
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

_SECONDARY = "secondary"


@dataclass(frozen=True, slots=True)
class KindPattern:
    """Names of documents of one kind.

    Attributes:
        kind: of the documents.
        regex: what is matched, in lower case.
        is_path: whether it is matched with the whole name, not with the part after the last slash.
    """

    kind: Kind
    regex: re.Pattern[str]
    is_path: bool

    @classmethod
    def of(cls, text: str) -> "KindPattern":
        """Return the pattern that a part of ``DOCV_KIND_PATTERNS`` says, ``kind:glob``."""
        kind, _, glob = (part.strip() for part in text.partition(":"))
        return cls(Kind(kind), re.compile(fnmatch.translate(glob.lower())), "/" in glob)


_FOLDERS = {source.value: source for source in (DocumentSource.USER_UPLOADED, DocumentSource.CASE_ATTACHMENTS)}


def identify(member: Member, patterns: Sequence[KindPattern] = ()) -> Document:
    """Return the member as the document that it is.

    Args:
        patterns: tried after the built-in ones, in this order.
    """
    source = source_of(member.name)
    media_type = media_type_of(member.data)
    _, dot, extension = _parts(member.name)[-1].rpartition(".")
    promised = media_type_named(extension) if dot else None
    return Document(
        name=member.name,
        kind=_kind_of(member.name, source, patterns),
        source=source,
        media_type=media_type,
        extension=extension_of(media_type),
        data=member.data,
        sha256=member.sha256,
        size=member.size,
        modified=member.modified,
        name_mismatch=promised if promised != media_type else None,
    )


def _parts(name: str) -> list[str]:
    """Return folders and name in lower case; some writers separate them by a backslash."""
    return [part for part in name.lower().replace("\\", "/").split("/") if part not in {"", "."}] or [""]


def source_of(name: str) -> DocumentSource:
    """Return who put a document of this name into its bundle."""
    *folders, _ = _parts(name)
    for folder in folders:
        if folder in _FOLDERS:
            return _FOLDERS[folder]
    return DocumentSource.USER_UPLOADED if not folders and _pattern(name) else DocumentSource.OTHER


def _kind_of(name: str, source: DocumentSource, patterns: Sequence[KindPattern]) -> Kind:
    if source is DocumentSource.CASE_ATTACHMENTS:
        return Kind.ATTACHMENT
    *folders, file = _parts(name)
    uploaded = DocumentSource.USER_UPLOADED.value
    below = folders[folders.index(uploaded) + 1 :] if uploaded in folders else ()
    if any(_SECONDARY in folder for folder in below):
        return Kind.SECONDARY_DOCUMENT
    if kind := _pattern(name):
        return kind
    whole = "/".join((*folders, file))
    return next((each.kind for each in patterns if each.regex.match(whole if each.is_path else file)), Kind.OTHER)


def _pattern(name: str) -> Kind | None:
    stem = _parts(name)[-1].partition(".")[0]
    return next((kind for kind, pattern in _PATTERNS if pattern.match(stem)), None)
