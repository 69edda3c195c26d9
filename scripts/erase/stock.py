"""The interface by which an erasure lists and removes object versions."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import PurePosixPath
from typing import Protocol

from tasks.errors import BadEvalId
from tasks.model.evaluation import ENVIRONMENTS, Evaluation, parse_eval_id
from tasks.retention.event import event_prefix
from worker.clients.errors import ServiceUnavailable


class NotRemoved(ServiceUnavailable):
    """S3, or the folder, answers, but refuses to remove some objects; others may be gone."""


@dataclass(frozen=True, slots=True)
class ObjectVersion:
    """One version of one object.

    Attributes:
        key: the object's key, below the archive's prefix.
        version: S3's ID of the version; empty in a folder.
        size: bytes.
        latest: whether this is the current version, which readers get.
        deletion: whether this is a delete marker, which has no content.
    """

    key: str
    version: str = ""
    size: int = 0
    latest: bool = True
    deletion: bool = False


@dataclass(frozen=True, slots=True)
class VersionLock:
    """A lock that S3 has on a version.

    Attributes:
        mode: ``GOVERNANCE`` or ``COMPLIANCE``, or ``HOLD`` for a legal hold.
        until: when it ends; None for a legal hold.
    """

    mode: str
    until: datetime | None = None

    def holds(self, now: datetime) -> bool:
        """Return whether the lock prevents the removal of the version at a time."""
        return self.until is None or self.until > now


class ObjectVersions(Protocol):
    """Lists and removes the versions of an evaluation's objects. Every method may raise ServiceUnavailable."""

    def items(self, evaluation: Evaluation) -> list[ObjectVersion]:
        """Return every version of an evaluation's objects."""

    def locks(self, items: Sequence[ObjectVersion], *, bypass_governance: bool) -> str | None:
        """Return why one of these versions must not be removed, or None."""

    def lock_of(self, item: ObjectVersion) -> VersionLock | None:
        """Return the lock of a version, even if it has ended, or None."""

    def remove(self, items: Sequence[ObjectVersion], *, bypass_governance: bool) -> None:
        """Remove these versions for good; raise NotRemoved if some of them stay."""

    def tidy(self, evaluation: Evaluation) -> None:
        """Remove unfinished uploads or empty folders."""

    def keys(self, below: str) -> list[str]:
        """Return the keys below a prefix, in order."""


def key_prefixes(evaluation: Evaluation) -> tuple[str, ...]:
    """Return the prefixes of an evaluation's keys: its documents, its bundles in quarantine, and its events."""
    keys = evaluation.manifest_key, evaluation.quarantine_key("")
    return *(f"{PurePosixPath(key).parent}/" for key in keys), event_prefix(evaluation)


def parse_evaluation(path: str) -> Evaluation | None:
    """Return the evaluation of a path that begins with its environment and ID, or None for a foreign object."""
    environment, _, rest = path.partition("/")
    try:
        eval_id = parse_eval_id(rest.partition("/")[0])
    except BadEvalId:
        return None
    return Evaluation(eval_id, environment) if environment in ENVIRONMENTS else None
