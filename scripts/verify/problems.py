"""What can be wrong with the archive: a closed set of words."""

import enum
from dataclasses import asdict, dataclass


class Problem(enum.StrEnum):
    """What is wrong; the words are part of what programs read."""

    MANIFEST_MISSING = "manifest_missing"
    """There are objects of an evaluation, or its ID was named, and there is no manifest."""
    MANIFEST_DAMAGED = "manifest_damaged"
    """A manifest, or a former one, is none of our schema."""
    MANIFEST_FOREIGN = "manifest_foreign"
    """A manifest speaks of another evaluation or environment."""
    KEY_OUTSIDE = "key_outside"
    """A manifest, or a run's list, names a key that is not its own; it was not followed."""
    KEY_WRONG = "key_wrong"
    """A key is not what the kind, hash and media type beside it make; it was not followed."""
    OBJECT_MISSING = "object_missing"
    """What is named is not there."""
    SIZE_DIFFERS = "size_differs"
    """It has another size."""
    CONTENT_DIFFERS = "content_differs"
    """It has other bytes."""
    METADATA_DIFFERS = "metadata_differs"
    """What S3 keeps beside its bytes says something else."""
    TAGS_DIFFER = "tags_differ"
    """Its tags say something else."""
    LOCK_DIFFERS = "lock_differs"
    """It is not locked as the settings say."""
    REVISION_MISSING = "revision_missing"
    """A former manifest is not there."""
    REVISION_DIFFERS = "revision_differs"
    """A former manifest is not the one its successor speaks of."""
    RUN_DAMAGED = "run_damaged"
    """The list of a run is none, or does not hold the IDs that the run was made from."""
    ORPHAN = "orphan"
    """Nothing names it."""
    NOT_READ = "not_read"
    """The store did not give it; nothing is known of it."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that is not as it must be.

    Attributes:
        eval_id: the evaluation; empty where it is nobody's.
        key: what it is about, below the archive's prefix.
        problem: what is wrong.
        detail: more of it, in our own words.
    """

    eval_id: str
    key: str
    problem: Problem
    detail: str

    def facts(self) -> dict[str, object]:
        """Return it as it can be printed: a key that somebody else made may hold anything."""
        printable = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in self.key)
        return {**asdict(self), "key": printable}
