"""What a verification works with, and what it counts on the way."""

import asyncio
import enum
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from scripts.console.formatting import format_bytes
from scripts.verify.objects_api import ListedObject, ObjectLister
from scripts.verify.problems import Difference, Problem
from tasks.storage.bucket import Bucket

_READS_AT_ONCE = 32


class VerifyDepth(enum.Enum):
    """How closely objects are looked at."""

    CONTENT = enum.auto()
    """Their bytes are read back and hashed."""
    CHECKSUMS = enum.auto()
    """S3's own checksum is compared; where it has none of the whole, the bytes are read."""
    SIZES = enum.auto()
    """The listing is compared: no request for a document at all."""


@dataclass(slots=True)
class VerifyProgress:
    """What was looked at.

    Attributes:
        evaluations: those chosen.
        objects: found by listing, in the chosen evaluations.
        size: bytes that were read back.
        quarantined: bundles in quarantine.
        receipts: of privacy requests.
        runs: lists of runs.
        young: objects that nothing names yet, and that are too young to be called orphans.
    """

    evaluations: int = 0
    objects: int = 0
    size: int = 0
    quarantined: int = 0
    receipts: int = 0
    runs: int = 0
    young: int = 0

    def sentence(self) -> str:
        """Return the counts in a line."""
        parts = [f"{self.evaluations:,} evaluations, {self.objects:,} objects, {format_bytes(self.size)} read back"]
        others = (
            (self.quarantined, "in quarantine"),
            (self.receipts, "receipts"),
            (self.runs, "lists of runs"),
            (self.young, "too young to be named by a manifest yet"),
        )
        return "; ".join(parts + [f"{count:,} {what}" for count, what in others if count])


@dataclass(frozen=True, slots=True)
class Selection:
    """Which evaluations are looked at.

    Attributes:
        share: part of all, 0 to 1; always the same ones.
        since: only those archived then or later.
    """

    share: float = 1.0
    since: datetime | None = None

    def has(self, eval_id: str) -> bool:
        """Whether an evaluation belongs to the share."""
        place = int.from_bytes(hashlib.sha256(eval_id.encode()).digest()[:8], "big")
        return place < self.share * 2**64

    def is_recent(self, archived_at: str) -> bool:
        """Whether a manifest was made late enough."""
        return self.since is None or datetime.fromisoformat(archived_at) >= self.since


@dataclass(frozen=True, slots=True)
class VerifyContext:
    """What a verification works with.

    Attributes:
        bucket: for bytes.
        lister: for all else.
        young: what was written after this, in seconds since 1970, may be named by a manifest that is on its way.
        depth: how closely objects are looked at.
        selection: which evaluations are.
        lock_expected: mode of the Object Lock that documents must have; None when they need none.
        progress: what was looked at so far.
        read_limit: how many objects may be read at once.
    """

    bucket: Bucket
    lister: ObjectLister
    young: float
    depth: VerifyDepth = VerifyDepth.CONTENT
    selection: Selection = field(default_factory=Selection)
    lock_expected: str | None = None
    progress: VerifyProgress = field(default_factory=VerifyProgress)
    read_limit: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_READS_AT_ONCE))

    async def objects(self, prefix: str) -> tuple[ListedObject, ...]:
        """Return all objects of one place, listed anew."""
        return tuple([stored async for some in self.lister.walk(prefix) for stored in some])

    def orphans(self, eval_id: str, unnamed: Sequence[ListedObject], why: str) -> list[Difference]:
        """Return those of the objects that nothing names which are old enough to be named."""
        old = [stored for stored in unnamed if stored.modified <= self.young]
        self.progress.young += len(unnamed) - len(old)
        return [Difference(eval_id, stored.key, Problem.ORPHAN, why) for stored in old]
