"""Plan and apply disposals in this process, on a day that the test chooses."""

import hashlib
import io
import json
from collections.abc import Awaitable, Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

from scripts.erase.traces import RedisRecords
from scripts.erase.versions import open_versions
from scripts.retention.application import Application, ApplicationResult
from scripts.retention.certificate import CertificateKeys, Operator
from scripts.retention.disposal import DisposalStores, Disposer
from scripts.retention.plan_counts import PlanCounts
from scripts.retention.plan_file import Plan, read_plan
from scripts.retention.survey import Survey
from tasks.model.evaluation import ENVIRONMENTS, Evaluation
from tasks.retention.event import EventReport, record_event
from tasks.retention.schedule import Schedule
from tasks.storage.bucket import Bucket
from tasks.storage.manifest import Manifest, read_manifest
from worker.config.settings import Settings

SCHEDULE: dict[str, Any] = {
    "rule": [
        {"name": "selfies", "kind": "selfie", "keep_for": "3y", "clock": "archived"},
        {"name": "fronts", "kind": "document_front", "keep_for": "5y", "clock": "relationship_ended", "keep": "must"},
    ]
}
OPERATOR = Operator("records", "a-host")


def at(day: str) -> datetime:
    """Return noon of a day, in UTC."""
    return datetime.fromisoformat(f"{day}T12:00:00+00:00")


def copy_selfie_as(kind: str) -> Callable[[Manifest], Manifest]:
    """Return a function that adds a copy of the selfie to a manifest, as a document of another kind."""

    def change(manifest: Manifest) -> Manifest:
        (selfie,) = [each for each in manifest.documents if each.kind == "selfie"]
        key, at = selfie.key.replace("/selfie/", f"/{kind}/"), selfie.archived_at or manifest.archived_at
        copy = selfie.model_copy(update={"kind": kind, "key": key, "archived_at": at})
        return manifest.model_copy(update={"documents": (*manifest.documents, copy)})

    return change


async def no_wait() -> None:
    """Return at once, because the test has no worker."""


@dataclass
class RetainedArchive:
    """An archive with a schedule.

    Attributes:
        settings: settings that name the archive.
        bucket: the archive.
        schedule: the schedule.
        wrapped: takes the real stores and returns those that disposals use.
        records: the records in Redis.
    """

    settings: Settings
    bucket: Bucket
    schedule: dict[str, Any] = field(default_factory=lambda: dict(SCHEDULE))
    wrapped: Callable[[DisposalStores], DisposalStores] = lambda stores: stores
    records: RedisRecords = field(default_factory=lambda: RedisRecords(None))

    def survey(self, day: str, environments: Sequence[str] = ENVIRONMENTS) -> Survey:
        text = json.dumps(self.schedule).encode()
        schedule, now = Schedule.model_validate(self.schedule), at(day)
        return Survey(self.settings, schedule, hashlib.sha256(text).hexdigest(), environments, now, lambda: now)

    async def plan(self, day: str, until: str | None = None) -> tuple[Plan, PlanCounts]:
        file = io.BytesIO()
        counts = await self.survey(day).run(self.bucket, date.fromisoformat(until or day), out=file)
        return read_plan(file), counts

    async def apply(
        self, plan: Plan, day: str, wait: Callable[[], Awaitable[None]] = no_wait, *, dry_run: bool = False
    ) -> ApplicationResult:
        survey = self.survey(day)
        stores = self.wrapped(DisposalStores(self.bucket, open_versions(self.settings), {"team": "kyc"}))
        keys = CertificateKeys(plan.sha256, plan.header.made_at)
        disposer = Disposer(stores, survey.schedule, keys, survey.today, survey.clock)
        application = Application(
            plan, disposer, OPERATOR, rate=10_000, wait=wait, open_leases=lambda: nullcontext(self.records.is_idle)
        )
        return await application.run(dry_run=dry_run)

    async def dispose(self, day: str) -> ApplicationResult:
        """Plan and apply on the same day."""
        plan, _ = await self.plan(day)
        return await self.apply(plan, day)

    async def report(self, eval_id: str, event: str, day: str | None, received: str) -> None:
        reported = EventReport(event, date.fromisoformat(day) if day else None, "records")
        await record_event(self.bucket, Evaluation(eval_id, "sandbox"), reported, at(received))

    async def manifest(self, eval_id: str) -> Manifest:
        found = await read_manifest(self.bucket, Evaluation(eval_id, "sandbox"))
        assert found
        return found.manifest

    async def certificates(self) -> dict[str, dict[str, Any]]:
        """Return every certificate by its key."""
        prefix = "receipts/disposals/"
        keys = [each.key async for some in self.bucket.list_objects(prefix) for each in some]
        found = {key: await self.bucket.read(key) for key in keys}
        return {key: json.loads(each.data) for key, each in found.items() if each}
