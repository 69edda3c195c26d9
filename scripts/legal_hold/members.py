"""Read which evaluations were added to a matter, in memory that does not grow with their number."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

from scripts.ids.scratch import leave_no_folders, scratch_folder
from scripts.ids.unique import Deduplicator, UniqueIds
from tasks.model.evaluation import ENVIRONMENTS
from tasks.storage.bucket import Bucket
from tasks.storage.matter import read_additions
from worker.config.settings import Settings


@dataclass(frozen=True, slots=True)
class AdditionSummary:
    """One addition to a matter.

    Attributes:
        environment: environment of the evaluations.
        added_at: time of the addition.
        added_by: operator that added them.
        evaluations: number of evaluations.
        kinds: kinds of the documents that are held; empty if all are.
    """

    environment: str
    added_at: str
    added_by: str
    evaluations: int
    kinds: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Members:
    """The evaluations of a matter.

    Attributes:
        ids: the evaluations of each environment that has some, each once.
        additions: the additions, the oldest first for each environment.
    """

    ids: dict[str, UniqueIds]
    additions: list[AdditionSummary]

    @property
    def counts(self) -> dict[str, int]:
        """Number of evaluations by environment."""
        return {environment: len(ids) for environment, ids in self.ids.items()}

    @property
    def total(self) -> int:
        """Number of all evaluations."""
        return sum(self.counts.values())


@contextlib.asynccontextmanager
async def open_members(bucket: Bucket, matter: str, settings: Settings) -> AsyncIterator[Members]:
    """Read the additions to a matter.

    Raises:
        IntegrityError: an addition is damaged.
        StorageError: the archive fails.
        ServiceUnavailable: the disk is too full for the IDs.
    """
    members = Members({}, [])
    with contextlib.ExitStack() as stack:
        stack.enter_context(leave_no_folders(settings))
        folder = scratch_folder(settings)
        for environment in ENVIRONMENTS:
            sieve = stack.enter_context(Deduplicator(folder))
            before = len(members.additions)
            async for each in read_additions(bucket, matter, environment):
                summary = AdditionSummary(environment, each.added_at, each.added_by, len(each.eval_ids), each.kinds)
                members.additions.append(summary)
                for eval_id in each.eval_ids:
                    sieve.add(eval_id)
            if len(members.additions) > before:
                members.ids[environment] = stack.enter_context(sieve.finish())
        yield members
