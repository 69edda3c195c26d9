"""What the archive holds of an evaluation, every version of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Protocol

from tasks.model.evaluation import Evaluation


@dataclass(frozen=True, slots=True)
class ObjectVersion:
    """One version of one object.

    Attributes:
        key: of the object, as the archive names it.
        version: S3's name of the version; empty in a folder.
        size: bytes.
        latest: whether it is the version that a reader gets.
        deletion: whether it is a delete marker, and so holds nothing.
    """

    key: str
    version: str = ""
    size: int = 0
    latest: bool = True
    deletion: bool = False


class ObjectVersions(Protocol):
    """What an erasure asks of the archive. Every method may raise ServiceUnavailable."""

    def items(self, evaluation: Evaluation) -> list[ObjectVersion]:
        """Return everything of an evaluation."""

    def locks(self, items: Sequence[ObjectVersion], *, bypass_governance: bool) -> str | None:
        """Return why some of these must not be removed, or None."""

    def remove(self, items: Sequence[ObjectVersion], *, bypass_governance: bool) -> None:
        """Remove these versions for good."""

    def tidy(self, evaluation: Evaluation) -> None:
        """Remove what is no object: unfinished uploads, or empty folders."""

    def keys(self, below: str) -> list[str]:
        """Return the keys below a prefix, in order."""


def prefixes_of(evaluation: Evaluation) -> tuple[str, str]:
    """Return what the keys of all objects of an evaluation begin with."""
    keys = evaluation.manifest_key, evaluation.quarantine_key("")
    return f"{PurePosixPath(keys[0]).parent}/", f"{PurePosixPath(keys[1]).parent}/"
