"""Survey the archive for a schedule: read every manifest once, and plan the disposals."""

import hashlib
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import IO

import click

from scripts.archive_access.s3_client import open_s3_archive
from scripts.console.read_only import ProgressLine
from scripts.erase.duties import find_deferred
from scripts.erase.locks import read_retention
from scripts.erase.receipt import describe_damage
from scripts.erase.stock import ObjectVersion
from scripts.retention.assessment import DocumentState
from scripts.retention.certificate_index import read_certificate_index
from scripts.retention.lock_extender import LockExtender
from scripts.retention.plan_counts import PlanCounts
from scripts.retention.plan_file import PlanHeader, PlanWriter
from scripts.retention.planner import ExaminedEvaluation, FindRetention, Planner
from scripts.retention.walk import ArchiveWalk, WalkedEvaluation
from scripts.verify.open_lister import open_lister
from tasks.model.evaluation import ENVIRONMENTS, Evaluation
from tasks.retention.schedule import Schedule, load_schedule
from tasks.storage.bucket import Bucket
from tasks.storage.manifest import archiver, format_utc
from tasks.telemetry import tracing
from worker.config.accounts import load_account_settings
from worker.config.settings import Settings, load_settings
from worker.tracing import open_tracer


def _utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Survey:
    """A survey of the archive.

    Attributes:
        settings: settings of the process, or of an account.
        schedule: the retention schedule.
        schedule_hash: SHA-256 of its file.
        environments: environments to survey.
        now: when the survey begins.
        clock: returns the current time.
    """

    settings: Settings
    schedule: Schedule
    schedule_hash: str
    environments: Sequence[str]
    now: datetime
    clock: Callable[[], datetime] = _utc_now

    @property
    def today(self) -> date:
        """The current day, UTC."""
        return self.now.date()

    async def run(
        self, bucket: Bucket, until: date, *, out: IO[bytes] | None = None, extender: LockExtender | None = None
    ) -> PlanCounts:
        """Return the counts of documents that are due by a day, and of those that wait.

        Args:
            bucket: the archive.
            out: file to write the plan to, or None.
            extender: extends locks during the survey, or None.

        Raises:
            ServiceUnavailable: S3, or the folder, refuses or fails.
            StorageError: the same.
        """
        writer = PlanWriter(out, self._make_header(until)) if out else None
        async with open_lister(self.settings) as lister:
            index = await read_certificate_index(bucket, lister, self.environments, self.now)
            planner = Planner(self.schedule, self.today, until, index, find_retention_reader(self.settings), writer)
            walk = ArchiveWalk(bucket, lister, self.environments, with_events=bool(self.schedule.events))

            async def examine(walked: WalkedEvaluation) -> ExaminedEvaluation:
                if extender:
                    await extender.extend(walked)
                return await planner.examine(walked)

            found = walk.run(examine)
            with ProgressLine("retention") as progress:
                async with aclosing(found):  # type: ignore[type-var]  # it is a generator
                    async for each in found:
                        planner.add(each)
                        progress.update(planner.counts.evaluations)
        planner.counts.deferred = len(await find_deferred(bucket, self.environments, _report_damage))
        if writer:
            writer.finish(planner.counts.total(DocumentState.DUE)[1])
        return planner.counts

    async def extend_locks(self, bucket: Bucket, extender: LockExtender) -> None:
        """Extend locks in the whole archive; raises as ``run``."""
        async with open_lister(self.settings) as lister:
            walk = ArchiveWalk(bucket, lister, ENVIRONMENTS, with_events=bool(self.schedule.events))
            async with aclosing(walk.run(extender.extend)) as extended:  # type: ignore[type-var]  # it is a generator
                async for _ in extended:
                    pass

    def _make_header(self, until: date) -> PlanHeader:
        return PlanHeader(
            archive=self.settings.archive_url,
            environments=tuple(self.environments),
            until=until,
            made_at=format_utc(self.now.timestamp()),
            schedule=self.schedule_hash,
            archiver=archiver(),
        )


def _report_damage(_: Evaluation, key: str) -> None:
    click.echo(f"docv-archive: {describe_damage(key)}", err=True)


def load_survey(account: str | None) -> Survey:
    """Return the survey of an account's environment; without an account, of both environments.

    Raises:
        click.UsageError: there is no schedule.
        SettingsError: a setting, an account or the schedule is not valid.
    """
    settings = load_account_settings(account) if account else load_settings()
    tracing.set_tracer(open_tracer(settings))
    schedule = load_schedule(settings)
    if schedule is None or settings.retention is None:
        raise click.UsageError("there is no schedule, so every document is kept: set DOCV_RETENTION")
    environments = (settings.environment,) if account else ENVIRONMENTS
    digest = hashlib.sha256(settings.retention.read_bytes()).hexdigest()
    return Survey(settings, schedule, digest, environments, _utc_now())


def find_retention_reader(settings: Settings) -> FindRetention | None:
    """Return a function that looks up locks, or None if the archive has none.

    Raises:
        ServiceUnavailable: S3 does not answer.
    """
    archive = open_s3_archive(settings)
    if archive is None or not archive.has_object_lock():
        return None
    return lambda key: read_retention(archive, ObjectVersion(key))
