"""Settings and counters of a verification."""

import asyncio
import enum
import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from scripts.console.formatting import format_bytes, format_count
from scripts.verify.layout import ArchiveArea
from scripts.verify.objects_api import ObjectLister
from scripts.verify.problems import Difference, Problem
from tasks.storage.bucket import Bucket, ListedObject

_READS_AT_ONCE = 32
_RECORDS = {
    ArchiveArea.EVENT: "event",
    ArchiveArea.LEGAL_HOLD: "legal-hold record",
    ArchiveArea.CERTIFICATE: "disposal certificate",
    ArchiveArea.RECEIPT: "receipt",
}


class VerifyDepth(enum.Enum):
    """How closely objects are checked."""

    CONTENT = enum.auto()
    """Their bytes are read back and hashed."""
    CHECKSUMS = enum.auto()
    """S3's own checksum is compared; if it has none of the whole object, the bytes are read."""
    SIZES = enum.auto()
    """Only the listing is compared, without a request for any document."""


@dataclass(slots=True)
class VerifyProgress:
    """Counters of a verification.

    Attributes:
        evaluations: chosen evaluations.
        objects: listed objects of the chosen evaluations.
        size: bytes that were read back.
        quarantined: bundles in quarantine.
        runs: lists of runs.
        records: other records, by their area.
        young: objects that are too young to be a difference: a manifest may follow, or a disposal is under way.
    """

    evaluations: int = 0
    objects: int = 0
    size: int = 0
    quarantined: int = 0
    runs: int = 0
    records: Counter[ArchiveArea] = field(default_factory=Counter)
    young: int = 0

    def sentence(self) -> str:
        """Return the counts in a line."""
        found = f"{format_count(self.evaluations, 'evaluation')}, {format_count(self.objects, 'object')}"
        others = (
            (self.quarantined, f"{self.quarantined:,} in quarantine"),
            (self.runs, format_count(self.runs, "run list")),
            *((count, format_count(count, _RECORDS[area])) for area, count in self.records.items()),
            (self.young, f"{self.young:,} too young to judge"),
        )
        return "; ".join([f"{found}, {format_bytes(self.size)} read back", *(said for count, said in others if count)])


@dataclass(frozen=True, slots=True)
class Selection:
    """Which evaluations are checked.

    Attributes:
        share: part of all evaluations, 0 to 1; always the same ones.
        since: only evaluations archived at this time or later.
    """

    share: float = 1.0
    since: datetime | None = None

    def has(self, eval_id: str) -> bool:
        """Return whether an evaluation belongs to the share."""
        place = int.from_bytes(hashlib.sha256(eval_id.encode()).digest()[:8], "big")
        return place < self.share * 2**64

    def is_recent(self, archived_at: str) -> bool:
        """Return whether a manifest was made at ``since`` or later."""
        return self.since is None or datetime.fromisoformat(archived_at) >= self.since


@dataclass(frozen=True, slots=True)
class VerifyContext:
    """Everything that a verification needs.

    Attributes:
        bucket: reads bytes.
        lister: lists objects and reads their attributes.
        young: time in seconds since 1970; a manifest that names a newer object may still follow, and a newer disposal
            may still be under way.
        depth: how closely objects are checked.
        selection: which evaluations are checked.
        lock_expected: mode of the Object Lock that documents must have; None if they need none.
        has_schedule: whether a retention schedule may leave documents without a lock.
        progress: counters until now.
        read_limit: bounds the objects that are read at the same time.
    """

    bucket: Bucket
    lister: ObjectLister
    young: float
    depth: VerifyDepth = VerifyDepth.CONTENT
    selection: Selection = field(default_factory=Selection)
    lock_expected: str | None = None
    has_schedule: bool = False
    progress: VerifyProgress = field(default_factory=VerifyProgress)
    read_limit: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_READS_AT_ONCE))

    async def objects(self, prefix: str) -> tuple[ListedObject, ...]:
        """Return all objects of one place from a new listing."""
        return tuple([stored async for some in self.lister.walk(prefix) for stored in some])

    def orphans(self, eval_id: str, unnamed: Sequence[ListedObject], why: str) -> list[Difference]:
        """Return the unnamed objects that are old enough to count as orphans."""
        return self.drop_young(
            [(stored.modified, Difference(eval_id, stored.key, Problem.ORPHAN, why)) for stored in unnamed]
        )

    def drop_young(self, found: Sequence[tuple[float, Difference]]) -> list[Difference]:
        """Return the differences that are old enough to count.

        Args:
            found: differences, and since when they may have existed, in seconds since 1970.
        """
        old = [difference for since, difference in found if since <= self.young]
        self.progress.young += len(found) - len(old)
        return old
