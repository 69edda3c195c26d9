"""The closed set of words for differences in the archive."""

import enum
from dataclasses import asdict, dataclass, fields


class Problem(enum.StrEnum):
    """A kind of difference. Programs read these words."""

    MANIFEST_MISSING = "manifest_missing"
    """An evaluation has objects, or was named, but has no manifest."""
    MANIFEST_DAMAGED = "manifest_damaged"
    """A manifest, current or former, does not fit the schema."""
    MANIFEST_FOREIGN = "manifest_foreign"
    """A manifest names another evaluation or environment."""
    KEY_OUTSIDE = "key_outside"
    """A manifest or a run list names a foreign key, which was not read."""
    KEY_WRONG = "key_wrong"
    """A key does not match the kind and hash next to it in the manifest; it was not read."""
    OBJECT_MISSING = "object_missing"
    """A named object does not exist."""
    DISPOSED_STILL_THERE = "disposed_still_there"
    """An object exists although its document was disposed of."""
    SIZE_DIFFERS = "size_differs"
    """The object has another size."""
    CONTENT_DIFFERS = "content_differs"
    """The object has other bytes."""
    SEALING_DIFFERS = "sealing_differs"
    """The object is not sealed, or with another key than its manifest says."""
    METADATA_DIFFERS = "metadata_differs"
    """The object has other user metadata."""
    TAGS_DIFFER = "tags_differ"
    """The object has other tags."""
    LOCK_DIFFERS = "lock_differs"
    """The object is not locked as the settings say."""
    REVISION_MISSING = "revision_missing"
    """A former manifest does not exist."""
    REVISION_DIFFERS = "revision_differs"
    """A former manifest does not have the hash that its successor names."""
    RUN_DAMAGED = "run_damaged"
    """A run list is not valid, or does not hold the IDs that it was made from."""
    RECORD_DAMAGED = "record_damaged"
    """An event, a legal hold, a receipt or a certificate of disposal is not valid, or was changed."""
    ORPHAN = "orphan"
    """No manifest and no run list names the object."""
    NOT_READ = "not_read"
    """The store did not return the object, so nothing is known about it."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One difference.

    Attributes:
        eval_id: the evaluation; empty if it belongs to none.
        key: key of the object, below the archive's prefix.
        problem: the kind of difference.
        detail: details, without foreign text.
    """

    eval_id: str
    key: str
    problem: Problem
    detail: str

    @classmethod
    def names(cls) -> list[str]:
        """Return the names of the columns, in order."""
        return [field.name for field in fields(cls)]

    def facts(self) -> dict[str, object]:
        """Return the columns in printable form, since a foreign key may have any characters."""
        printable = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in self.key)
        return {**asdict(self), "key": printable}
