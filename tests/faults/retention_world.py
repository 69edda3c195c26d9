"""A folder or a bucket under a retention schedule for years: the product's own code, on a simulated clock.

Everything that happens is drawn from a seed, and recorded in the model as well. After each application the two are
compared.
"""

import asyncio
import contextlib
import datetime as dt
import hashlib
import heapq
import io
import random
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Collection, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID

import orjson
import pytest

from scripts.erase.duties import RetentionDuties, Waiting
from scripts.erase.erasure import Erased, ErasureRefused, ErasureStores, erase_one
from scripts.erase.receipt import ErasureRequest
from scripts.erase.traces import RedisRecords
from scripts.erase.versions import open_versions
from scripts.legal_hold.holder import Holder
from scripts.retention import apply_command, deferred_erasures
from scripts.retention.apply_command import ApplyOptions, apply_due, apply_plan
from scripts.retention.event_recorder import EventRecorder
from scripts.retention.event_rows import RefusedRow, ReportRow
from scripts.retention.plan_file import Plan, read_plan
from scripts.retention.survey import Survey
from scripts.verify.command import find_differences
from scripts.verify.context import VerifyContext
from scripts.verify.layout import group_objects
from scripts.verify.open_lister import open_lister
from scripts.verify.ordered_gather import ordered_gather
from scripts.verify.problems import Difference, Problem
from tasks.bundle.unpacker import BundleUnpacker
from tasks.bundle.zip import Limits
from tasks.model.account import Account
from tasks.model.evaluation import ENVIRONMENTS, Evaluation
from tasks.model.job import Job, Queue, Trigger
from tasks.model.outcome import Outcome
from tasks.pipeline.pipeline import PipelineContext, archive
from tasks.pipeline.retention import RetentionPolicy
from tasks.pipeline.upload import UploadTarget
from tasks.resilience.archive_gate import ArchiveGate
from tasks.retention.schedule import Schedule
from tasks.riskos.client import RiskOSClient
from tasks.riskos.response import Bundle, FetchResult, NoBundle
from tasks.storage.bucket import AlreadyExists, Bucket, ObjectAttributes
from tasks.storage.manifest import Manifest, read_manifest
from tasks.storage.manifest_records import DisposedRecord
from tasks.storage.matter import begin_release, complete_release, create_matter, record_addition
from tests.faults.locked_bucket import LOCK_DAYS, LockedBucket
from tests.faults.retention_model import EVENTS, RULES, Document, EvaluationModel, ModelDisposal, Named
from tests.scripts.erase.test_erasure import PowerCut
from tests.scripts.retention.disposals import OPERATOR
from tests.zips import zip_of
from worker.config.settings import Settings

FIRST_DAY = dt.date(2024, 1, 2)
_HOURS = (0, 0, 9, 22)
"""Hours at which a day's work begins; it takes minutes."""
_TICK = dt.timedelta(milliseconds=1)
_ENVIRONMENTS = {"eu": "sandbox", "us": "production"}
_NAMES = {
    "document_front": "user_uploaded/documentfrontDoc_Front_1_blob.jpg",
    "document_back": "user_uploaded/documentbackDoc_Back_1_blob.jpg",
    "selfie": "user_uploaded/Doc_Selfie_1_blob.jpg",
    "secondary_document": "user_uploaded/secondary/bill.pdf",
    "attachment": "case_attachments/1.pdf",
    "other": "notes.bin",
}
_KINDS = {name: kind for kind, name in _NAMES.items()} | {"case_attachments/2.pdf": "attachment"}
_SHARED = [b"%PDF-1.4 terms " + bytes([number]) for number in range(4)]
"""Attachments that many evaluations have."""
_STEPS = frozenset({"create", "replace", "items", "remove", "tidy"})
"""Calls at which a process is killed."""
SCHEDULE = Schedule.model_validate({"max_per_run": 1_000_000, "rule": [each.table() for each in RULES]})


@dataclass
class SimulatedClock:
    """A clock that the test sets, and that goes on by a millisecond whenever it is read.

    Attributes:
        now: its time.
    """

    now: dt.datetime = dt.datetime(2024, 1, 2, tzinfo=dt.UTC)

    def set_day(self, day: dt.date, hour: int) -> None:
        self.now = max(self.now, dt.datetime.combine(day, dt.time(hour), dt.UTC))

    def read(self) -> dt.datetime:
        self.now += _TICK
        return self.now

    def seconds(self) -> float:
        return self.read().timestamp()

    def today(self) -> dt.date:
        return self.now.date()

    def install(self, patch: pytest.MonkeyPatch) -> None:
        """Let the product read this clock wherever it does not take one as an argument."""
        clock = self

        class Simulated(dt.datetime):
            @classmethod
            def now(cls, tz: dt.tzinfo | None = None) -> dt.datetime:
                return clock.read().astimezone(tz)

        stub = SimpleNamespace(time=self.seconds, monotonic=time.monotonic)
        patch.setattr("tasks.storage.manifest.time", stub)
        patch.setattr("scripts.erase.traces.time", stub)
        for module in ("tasks.storage.matter", "scripts.erase.receipt", "scripts.erase.locks"):
            patch.setattr(f"{module}.datetime", Simulated)
        patch.setattr(
            "scripts.retention.event_recorder.dt", SimpleNamespace(datetime=Simulated, UTC=dt.UTC, date=dt.date)
        )


@dataclass
class KillSwitch:
    """Ends the process at one of its next steps.

    Attributes:
        steps_left: how many steps it has left; None for all.
        is_before: whether the last step is not carried out.
    """

    steps_left: int | None = None
    is_before: bool = False

    def wrap(self, behind: Any) -> Any:
        """Return an object whose steps are counted."""
        return _Mortal(behind, self)

    def has_ended(self) -> bool:
        if self.steps_left is not None:
            self.steps_left -= 1
        return self.steps_left is not None and self.steps_left < 0


class _Mortal:
    def __init__(self, behind: Any, switch: KillSwitch) -> None:
        self._behind, self._switch = behind, switch

    def __getattr__(self, name: str) -> Any:
        method, switch = getattr(self._behind, name), self._switch
        if name not in _STEPS:
            return method

        async def later(*arguments: Any, **named: Any) -> Any:
            is_last = switch.has_ended()
            if not (is_last and switch.is_before):
                result = await method(*arguments, **named)
            if is_last:
                raise PowerCut
            return result

        def now(*arguments: Any, **named: Any) -> Any:
            is_last = switch.has_ended()
            if not (is_last and switch.is_before):
                result = method(*arguments, **named)
            if is_last:
                raise PowerCut
            return result

        return later if asyncio.iscoroutinefunction(method) else now


@dataclass
class _ScriptedRiskOS:
    """RiskOS: it answers with the current documents of an evaluation."""

    account: Account
    documents: dict[str, dict[str, bytes]]

    async def fetch(self, evaluation: Evaluation, *_: object) -> FetchResult:
        documents = self.documents[evaluation.eval_id]
        if not documents:
            return NoBundle(Outcome.NO_DOCUMENTS, 400, "No Documents Found")
        data = zip_of(documents)
        return Bundle(None, data, hashlib.sha256(data).hexdigest(), len(data))


@dataclass(frozen=True)
class WorldSize:
    """How much happens.

    Attributes:
        evaluations: how many there are.
        years: for how long.
        busy_days: on how many days something happens besides applications.
        actions: how often something happens to an evaluation after its first archiving.
        verify_days: days between two verifications.
        plans: how many plans are written and applied later.
        is_aligned: whether it all happens on the same day of each year, so that there are few applications.
        is_checked_daily: whether each application is followed by a comparison of all evaluations.
    """

    evaluations: int
    years: int = 12
    busy_days: int = 100
    actions: int = 8
    verify_days: int = 365
    plans: int = 5
    is_aligned: bool = False
    is_checked_daily: bool = True


@dataclass
class RetentionWorld:
    """An archive, the model of it, and everything that happens to both.

    Attributes:
        seed: decides what happens.
        size: how much happens.
        settings: name the archive.
        bucket: the archive, as commands write to it.
        clock: the simulated clock.
        find_documents: returns kind and hash of each object of an evaluation, whatever its manifest says.
        locked: the bucket, if the archive is in S3.
        models: the model of each evaluation.
        counts: how often each thing happened.
    """

    seed: int
    size: WorldSize
    settings: Settings
    bucket: Bucket
    clock: SimulatedClock
    find_documents: Callable[[Evaluation], set[Document]]
    locked: LockedBucket | None = None
    models: dict[str, EvaluationModel] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    _switch: KillSwitch = field(default_factory=KillSwitch)
    _agenda: list[tuple[dt.date, int, str, str]] = field(default_factory=list)
    _riskos: dict[str, dict[str, bytes]] = field(default_factory=dict)
    _jobs: defaultdict[str, list[Job]] = field(default_factory=lambda: defaultdict(list))
    _matters: dict[str, list[str]] = field(default_factory=dict)
    _plans: list[tuple[Plan, Named]] = field(default_factory=list)
    _erased_at: dict[str, float] = field(default_factory=dict)
    _lingering: set[str] = field(default_factory=set)
    _orphaned: set[str] = field(default_factory=set)
    _interrupted: bool = False

    def __post_init__(self) -> None:
        self.dice = random.Random(self.seed)  # noqa: S311  # not a secret
        self._numbers = count()
        last = FIRST_DAY + dt.timedelta(days=365 * self.size.years)
        some = {
            FIRST_DAY + dt.timedelta(days=self.dice.randrange((last - FIRST_DAY).days))
            for _ in range(self.size.busy_days)
        }
        leap = {
            dt.date(year, month, day) for year in range(2024, last.year, 4) for month, day in ((2, 28), (2, 29), (3, 1))
        }
        self.busy_days = sorted(some | leap)
        self.last_day = last
        for _ in range(self.size.evaluations):
            self._plan_life()
        for _ in range(self.size.plans):
            self._put_on_agenda(self.dice.choice(self.busy_days), next(iter(self.models)), "plan")

    def _plan_life(self) -> None:
        dice, eval_id = self.dice, str(UUID(int=self.dice.getrandbits(128)))
        first = dice.randrange(len(self.busy_days) * 2 // 3)
        days_before = 0 if self.size.is_aligned else dice.choice([0, 0, 1, 30, 700])
        captured = self.busy_days[first] - dt.timedelta(days=days_before) if dice.random() < 0.7 else None
        run = "disputed" if dice.random() < 0.1 else "q3"
        self.models[eval_id] = EvaluationModel(eval_id, dice.choice(list(_ENVIRONMENTS)), run, captured)
        names = dice.sample(list(_KINDS), dice.randint(2, len(_KINDS)))
        self._riskos[eval_id] = {name: self._make_content(name) for name in names}
        if dice.random() < 0.05:
            self._put_on_agenda(self.busy_days[max(0, first - 3)], eval_id, "hold")
        self._put_on_agenda(self.busy_days[first], eval_id, "archive")
        for _ in range(dice.randint(1, self.size.actions)):
            self._put_on_agenda(dice.choice(self.busy_days[first:]), eval_id, self._choose_action())

    def _choose_action(self) -> str:
        actions = {"refresh": 4, "report": 8, "replay": 2, "hold": 1, "erase": 1, "archive again": 0.5}
        return self.dice.choices(list(actions), list(actions.values()))[0]

    def _put_on_agenda(self, day: dt.date, eval_id: str, action: str) -> None:
        heapq.heappush(self._agenda, (day, next(self._numbers), eval_id, action))

    def _make_content(self, name: str) -> bytes:
        if name.startswith("case_attachments/") and self.dice.random() < 0.3:
            return self.dice.choice(_SHARED)
        beginning = b"%PDF-1.4 " if name.endswith(".pdf") else b"\xff\xd8\xff\xe0"
        return beginning + self.dice.randbytes(self.dice.randint(8, 40))

    @property
    def today(self) -> dt.date:
        """The simulated day."""
        return self.clock.today()

    def install(self, patch: pytest.MonkeyPatch) -> None:
        """Let commands read the simulated clock and be killed."""
        self.clock.install(patch)
        if self.locked:
            self.locked.install(patch)

        @contextlib.asynccontextmanager
        async def open_mortal(_: Settings) -> Any:
            yield self._switch.wrap(self.bucket)

        patch.setattr(apply_command, "open_archive_bucket", open_mortal)
        for module in (apply_command, deferred_erasures):
            patch.setattr(module, "open_versions", lambda settings: self._switch.wrap(open_versions(settings)))

    # -- time

    async def live(self) -> None:
        """Let all years pass, jumping over the days on which nothing happens."""
        verified = FIRST_DAY
        day: dt.date | None = self._agenda[0][0]
        while day and day <= self.last_day:
            self.clock.set_day(day, self.dice.choice(_HOURS))
            await self._act()
            for model in self.models.values():
                self._read_locks(model)
            await self._apply()
            if self.today >= verified + dt.timedelta(days=self.size.verify_days) and not self._interrupted:
                await self.check_everything()
                verified = self.today
            day = self._find_next_day()
        if self._interrupted:
            self.clock.set_day(self.today + dt.timedelta(days=1), 0)
            await self._apply()
        await self.check_everything()

    def _find_next_day(self) -> dt.date | None:
        tomorrow = self.today + dt.timedelta(days=1)
        days = [each for model in self.models.values() if (each := model.next_day())]
        days += [self._agenda[0][0]] if self._agenda else []
        if self._interrupted:
            days.append(tomorrow)
        following = min(days, default=None)
        if following and following > tomorrow and self.dice.random() < 0.1:
            following -= dt.timedelta(days=1)  # nothing may happen on the day before
        return following and max(following, tomorrow)

    async def _act(self) -> None:
        while self._agenda and self._agenda[0][0] <= self.today:
            _, _, eval_id, action = heapq.heappop(self._agenda)
            with self.blaming(eval_id):
                await self._do(action, eval_id)

    async def _do(self, action: str, eval_id: str) -> None:  # noqa: C901  # a line for each action
        self.counts[action.partition(" m-")[0]] += 1
        match action:
            case "archive":
                await self._order(eval_id)
            case "refresh":
                self._change_at_riskos(eval_id)
                await self._order(eval_id, refresh=True)
            case "archive again":
                await self._order(eval_id, refresh=True, even_if_erased=True)
            case "replay":
                await self._replay(eval_id)
            case "retry":
                await self._attempt(self._jobs[eval_id][-1])
            case "report":
                await self._report(eval_id)
            case "hold":
                await self._hold(eval_id)
            case "erase":
                await self._erase(eval_id)
            case "plan":
                await self._make_plan()
            case "apply a plan":
                await self._apply_plan()
            case release:
                await self._release(release.removeprefix("release "))

    @contextlib.contextmanager
    def blaming(self, eval_id: str) -> Iterator[None]:
        """Add the seed and the history of an evaluation to a failure."""
        try:
            yield
        except Exception as error:
            if not getattr(error, "__notes__", None):
                error.add_note(f"seed {self.seed}, {self.size}, on {self.today}")
                error.add_note("\n".join([eval_id, *self.models[eval_id].history]))
            raise

    def _note(self, eval_id: str, what: str) -> None:
        self.models[eval_id].history.append(f"{self.today} {what}")

    def evaluation(self, eval_id: str) -> Evaluation:
        """Return an evaluation with its environment."""
        account = self.models[eval_id].account
        return Evaluation(eval_id, _ENVIRONMENTS[account], account)

    async def _killed(self, work: Callable[[], Awaitable[Any]], most_steps: int, chance: float) -> bool:
        """Carry out work, and perhaps kill it; return whether it was killed."""
        if self.dice.random() < chance:
            self._switch.steps_left = self.dice.randrange(most_steps)
            self._switch.is_before = self.dice.random() < 0.5
        try:
            await work()
        except PowerCut:
            self.counts["killed"] += 1
            return True
        finally:
            self._switch.steps_left = None
        return False

    async def _until_complete(self, work: Callable[[], Awaitable[Any]], most_steps: int, chance: float) -> None:
        """Carry out work; if it is killed, carry it out again."""
        while await self._killed(work, most_steps, chance):
            pass

    # -- orders

    def _change_at_riskos(self, eval_id: str) -> None:
        documents, dice = self._riskos[eval_id], self.dice
        for _ in range(dice.randint(0, 2)):
            match dice.randrange(4):
                case 0 | 1:
                    name = dice.choice(list(_KINDS))
                    documents[name] = self._make_content(name)
                case 2 if documents:
                    documents[dice.choice(list(_KINDS))] = dice.choice(list(documents.values()))
                case _ if documents:
                    del documents[dice.choice(list(documents))]

    async def _order(self, eval_id: str, *, refresh: bool = False, even_if_erased: bool = False) -> None:
        model, ordered_at = self.models[eval_id], self.clock.seconds()
        captured = model.captured and dt.datetime.combine(model.captured, dt.time(23), dt.UTC).timestamp()
        trigger = Trigger("run", run=model.run)
        job = Job(eval_id, "token", Queue.LIVE, model.account, refresh, 0, 0, trigger, event_at=captured)
        job = replace(job, even_if_erased=even_if_erased, ordered_at=ordered_at)
        self._jobs[eval_id].append(job)
        await self._attempt(job)

    async def _replay(self, eval_id: str) -> None:
        """Carry out all earlier orders again, as after the restore of an older Redis."""
        for job in list(self._jobs[eval_id]):
            await self._attempt(job)

    async def _attempt(self, job: Job) -> None:
        model = self.models[job.eval_id]
        documents = {
            (_KINDS[name], hashlib.sha256(data).hexdigest()): len(data)
            for name, data in self._riskos[job.eval_id].items()
        }
        is_covered = job.even_if_erased and self._erased_at.get(job.eval_id, 0.0) < (job.ordered_at or 0.0)
        is_asked = is_covered if model.is_erased else job.refresh or not model.is_archived
        work = partial(archive, job, self._make_context(model.account))
        if is_asked and self.dice.random() < 0.04 and await self._leave_orphans(job, work):
            return
        orphans = self._find_orphans(model)
        await self._until_complete(work, 8, 0.1)
        told = sorted(f"{kind} {sha256[:6]}" for kind, sha256 in documents)
        self._note(job.eval_id, f"order: {', '.join(told) if is_asked else 'RiskOS is not asked'}")
        if is_asked:
            model.deliver(documents, self.today, orphans)
            self.counts["answers of RiskOS"] += 1
            if not self._find_orphans(model):
                self._orphaned.discard(job.eval_id)

    def _find_orphans(self, model: EvaluationModel) -> set[Document]:
        """Return the documents that interrupted attempts have left."""
        is_orphaned = model.eval_id in self._orphaned
        return self.find_documents(self.evaluation(model.eval_id)) - model.held.keys() if is_orphaned else set()

    async def _leave_orphans(self, job: Job, work: Callable[[], Awaitable[Any]]) -> bool:
        """End an attempt before its manifest, and make it again on a later day; return whether it ended."""
        evaluation = self.evaluation(job.eval_id)
        before = await read_manifest(self.bucket, evaluation)
        if not await self._killed(work, 4, 1):
            return False
        after = await read_manifest(self.bucket, evaluation)
        if (before and before.stored.etag) != (after and after.stored.etag):
            return False  # its last step was the manifest
        self._note(job.eval_id, "an order that is interrupted")
        self._orphaned.add(job.eval_id)
        self._jobs[job.eval_id].append(replace(job, refresh=True))
        self.counts["interrupted attempts"] += 1
        tomorrow = self.today + dt.timedelta(days=1)
        later = [each for each in self.busy_days if each > self.today][:20]
        self._put_on_agenda(self.dice.choice([tomorrow, *later]), job.eval_id, "retry")
        return True

    def _make_context(self, account: str) -> PipelineContext:
        bucket = self._switch.wrap(self.locked.worker_bucket if self.locked else self.bucket)
        known = Account(account, _ENVIRONMENTS[account], "", None, None, None)  # type: ignore[arg-type]
        client = cast("RiskOSClient", _ScriptedRiskOS(known, self._riskos))
        gate = ArchiveGate(None, None)  # type: ignore[arg-type]  # it is never closed
        policy = RetentionPolicy(SCHEDULE, LOCK_DAYS if self.locked else None, self.clock.today)
        return PipelineContext(client, gate, UploadTarget(bucket), bucket, BundleUnpacker(Limits()), retention=policy)

    # -- events, legal holds, erasures

    async def _report(self, eval_id: str) -> None:
        model, event = self.models[eval_id], self.dice.choice(EVENTS)
        days = [each for each in self.busy_days if each <= self.today]
        day = None if self.dice.random() < 0.15 else self.dice.choice(days)
        recorder = EventRecorder(self._switch.wrap(self.bucket), _ENVIRONMENTS[model.account], "records")
        results: list[object] = []

        async def record() -> None:
            results[:] = await recorder.record([ReportRow("line 1", eval_id, event, day)])

        await self._until_complete(record, 2, 0.1)
        self._note(eval_id, f"report: {event} {day}")
        assert isinstance(results[0], RefusedRow) == (model.is_erased or not model.is_known)
        model.report(event, day, self.today)

    async def _hold(self, eval_id: str) -> None:
        matter, even_if_absent = f"m-{next(self._numbers)}", self.dice.random() < 0.5
        members = sorted({eval_id, self.dice.choice(list(self.models))})
        await self._until_complete(partial(self._hold_all, matter, members, even_if_absent=even_if_absent), 8, 0.2)
        for each in members:
            model = self.models[each]
            if (model.is_known or even_if_absent) and not model.is_erased:
                self._note(each, f"hold: {matter}")
                model.is_known = True
                model.matters.add(matter)
        later = [each for each in self.busy_days if each > self.today][:60]
        if later:
            self._put_on_agenda(self.dice.choice(later), eval_id, f"release {matter}")
        self._matters[matter] = members

    async def _hold_all(self, matter: str, members: list[str], *, even_if_absent: bool) -> None:
        """Do what `legal-hold create` and `legal-hold add` do."""
        bucket = self._switch.wrap(self.bucket)
        await create_matter(bucket, matter, "case 17", "counsel")
        holder = Holder(bucket, self.locked and self.locked.archive, matter, even_if_absent)
        for each in map(self.evaluation, members):
            if (await holder.look_up(each)).is_new:
                await record_addition(bucket, matter, each.environment, [each.eval_id], "counsel")
            model = self.models[each.eval_id]
            is_refused = model.is_erased or not (model.is_known or even_if_absent)
            assert bool((await holder.hold(each)).why) == is_refused

    async def _release(self, matter: str) -> None:
        await self._until_complete(partial(self._release_all, matter), 6, 0.2)
        for each in self._matters.pop(matter):
            self._note(each, f"release: {matter}")
            self.models[each].matters.discard(matter)

    async def _release_all(self, matter: str) -> None:
        """Do what `legal-hold release` does."""
        bucket = self._switch.wrap(self.bucket)
        await begin_release(bucket, matter, "settled", "counsel")
        for each in map(self.evaluation, self._matters[matter]):
            assert (await Holder(bucket, self.locked and self.locked.archive, matter).release(each)).why is None
        await complete_release(bucket, matter)

    async def _erase(self, eval_id: str) -> None:
        model, evaluation = self.models[eval_id], self.evaluation(eval_id)
        if not model.is_known:
            return
        self._read_locks(model)
        request = ErasureRequest("request 4711", "operator", "a-host", when_allowed=self.dice.random() < 0.7)
        results: list[object] = []

        async def erase() -> None:
            results.append(await erase_one(evaluation, request, self._make_stores()))

        await self._until_complete(erase, 12, 0.2)
        result, is_allowed = results[-1], not model.has_duty(self.today)
        self._note(eval_id, f"erase: {result}")
        if not is_allowed and request.when_allowed:
            assert isinstance(result, Waiting), result
            model.is_waiting = True
        elif not is_allowed or model.matters or model.erasable_from > self.today:
            assert isinstance(result, ErasureRefused), result
        else:
            assert isinstance(result, Erased), result
            await self._record_erasure(eval_id)

    def _read_locks(self, model: EvaluationModel) -> None:
        """Tell the model what S3 keeps, and until when."""
        if self.locked:
            locks = self.locked.find_locks(self.evaluation(model.eval_id))
            model.erasable_from = max(locks.values(), default=dt.date.min)
            model.locks.clear()
            for key, day in locks.items():
                sha256 = key.rpartition("/")[2].partition(".")[0]
                model.locks[sha256] = max(day, model.locks.get(sha256, day))

    def _make_stores(self) -> ErasureStores:
        versions = self._switch.wrap(open_versions(self.settings))
        duties = RetentionDuties(SCHEDULE, self.today)
        return ErasureStores(self._switch.wrap(self.bucket), versions, RedisRecords(None), duties=duties)

    async def _record_erasure(self, eval_id: str) -> None:
        model, after = self.models[eval_id], await self._read(eval_id)
        self._note(eval_id, "erased")
        self.counts["erasures"] += 1
        assert after.erased, "it has no marker"
        self._erased_at[eval_id] = after.erased.at_seconds
        model.erase()
        self._orphaned.discard(eval_id)

    async def _read(self, eval_id: str) -> Manifest:
        found = await read_manifest(self.bucket, self.evaluation(eval_id))
        assert found, "it has no manifest"
        return found.manifest

    # -- applications

    async def _make_plan(self) -> None:
        """Write a plan, which is applied later."""
        for model in self.models.values():
            self._read_locks(model)
        file, until = io.BytesIO(), self.today + dt.timedelta(days=self.dice.choice([0, 30, 200]))
        await self._survey().run(self.bucket, until, out=file)
        named = {
            model.eval_id: {(*each, said.rule.name) for each, said in model.due_on(until).items() if said.rule}
            for model in self.models.values()
        }
        plan = read_plan(file)
        planned = {
            each.eval_id: {(document.kind, document.sha256, document.rule) for document in each.documents}
            for each in plan.evaluations()
        }
        for eval_id in self.models:
            with self.blaming(eval_id):
                assert planned.get(eval_id, set()) == named[eval_id], f"the plan until {until}"
        if later := [each for each in self.busy_days if each > self.today][:10]:
            self._plans.append((plan, named))
            self._put_on_agenda(self.dice.choice(later), next(iter(self.models)), "apply a plan")

    async def _apply_plan(self) -> None:
        plan, named = self._plans.pop(0)
        for model in self.models.values():
            self._read_locks(model)
        work = partial(apply_plan, plan, self._survey(), self._make_options())
        await self._run(work, named)
        later = [each for each in self.busy_days if each > self.today][:10]
        if self._interrupted and self.dice.random() < 0.5:
            self._plans.append((plan, named))
            await self._apply_plan()
        elif later and self.dice.random() < 0.5:
            self._plans.append((plan, named))
            self._put_on_agenda(self.dice.choice(later), next(iter(self.models)), "apply a plan")

    async def _apply(self) -> None:
        """Run the daily application, if it has anything to do, and sometimes if it has not."""
        has_work = self._interrupted or any(map(self._may_change, self.models.values()))
        if not has_work and self.dice.random() < (0.3 if self._count_locked() else 0.8):
            return
        surveys = [self._survey() for _ in range(2 if self.dice.random() < 0.05 else 1)]

        async def apply() -> int:
            # A worker that writes after the one machine is through would have lost its lease.
            work = [apply_due(each, self._make_options(may_be_late=len(surveys) == 1)) for each in surveys]
            codes = await asyncio.gather(*work, return_exceptions=True)  # so that none goes on if another is killed
            for failure in (each for each in codes if isinstance(each, BaseException)):
                raise failure
            return max(code for code in codes if isinstance(code, int))

        await self._run(apply, None)

    def _count_locked(self) -> int:
        """Return how many documents are due, but locked."""
        return sum(
            each.due is not None and each.due <= self.today < model.locks.get(sha256, dt.date.min)
            for model in self.models.values()
            if model.locks
            for (_, sha256), each in model.decisions().items()
        )

    def _may_change(self, model: EvaluationModel) -> bool:
        next_day = model.next_day()
        is_left = model.eval_id in self._lingering and not model.matters
        return is_left or (next_day is not None and next_day <= self.today)

    async def _run(self, apply: Callable[[], Awaitable[int]], named: Named | None) -> None:
        """Run an application, which may be killed, and compare what it did with the model."""
        changing = [model for model in self.models.values() if self._may_change(model)]
        codes: list[int] = []

        async def work() -> None:
            codes.append(await apply())

        self._interrupted = await self._killed(work, 4 + 8 * len(changing), 0.2)
        self.counts["applications"] += 1
        self.counts["kept by a lock"] += self._count_locked()
        for model in changing:
            with self.blaming(model.eval_id):
                await self._record_application(model, None if named is None else named.get(model.eval_id, ()))
        assert self._interrupted or codes == [0]
        for model in self.models.values() if self.size.is_checked_daily else changing:
            with self.blaming(model.eval_id):
                await self.compare(model)

    async def _record_application(self, model: EvaluationModel, named: Collection[tuple[str, str, str]] | None) -> None:
        """Record what an application did to an evaluation; if it was killed, it may have done a part of it."""
        going = model.going(self.today, named)
        may_erase = model.is_waiting and not model.matters and model.erasable_from <= self.today
        if self._interrupted:
            self._lingering.add(model.eval_id)
            manifest = await self._read(model.eval_id)
            may_erase = may_erase and manifest.erased is not None
            gone = {each.sha256 for each in manifest.disposed}
            going = going if manifest.erased else {each: said for each, said in going.items() if each[1] in gone}
        elif not model.matters:
            self._lingering.discard(model.eval_id)
        if going:
            self.counts["disposed of"] += len(going)
            told = sorted(f"{kind} {sha256[:6]}" for kind, sha256 in going)
            self._note(model.eval_id, f"disposed of: {', '.join(told)}")
        model.dispose(going, self.today)
        if may_erase and not model.has_duty(self.today):
            await self._record_erasure(model.eval_id)

    def _survey(self) -> Survey:
        return Survey(self.settings, SCHEDULE, "0" * 64, ENVIRONMENTS, self.clock.read(), self.clock.read)

    def _make_options(self, *, may_be_late: bool = True) -> ApplyOptions:
        late = [self.clock.read()] if may_be_late and self.dice.random() < 0.2 else []

        async def wait() -> None:
            if late:
                await self._store_late(late.pop())

        return ApplyOptions(OPERATOR, 1e9, wait, as_json=True)

    async def _store_late(self, since: dt.datetime) -> None:
        """Store documents again that were disposed of since a time, as a worker that had read the manifest before."""
        for model in self.models.values():
            if not model.matters and model.due_on(self.today) and self.dice.random() < 0.5:
                for each in (await self._read(model.eval_id)).disposed:
                    if dt.datetime.fromisoformat(each.disposed_at) >= since and each.receipt:
                        self.counts["stored again meanwhile"] += 1
                        with contextlib.suppress(AlreadyExists):
                            await self.bucket.create(each.key, b"late", ObjectAttributes("image/jpeg"))

    # -- comparisons

    async def compare(self, model: EvaluationModel) -> None:
        """Compare the manifest and the objects of an evaluation with the model."""
        found = await read_manifest(self.bucket, self.evaluation(model.eval_id))
        assert (found is not None) == model.is_known
        objects = self.find_documents(self.evaluation(model.eval_id))
        if found is None:
            assert objects == set() or model.eval_id in self._orphaned
            return
        manifest = found.manifest
        assert (manifest.erased is not None) == model.is_erased
        assert set(manifest.matters) == model.matters
        held = {(each.kind, each.sha256) for each in manifest.documents}
        assert held == model.held.keys(), f"held are {held}, and {model.held} ought to be; {model.decisions()}"
        assert Counter(_disposal_of(each) for each in manifest.disposed if each.receipt) == Counter(model.disposals)
        assert {(each.kind, each.sha256) for each in manifest.disposed if not each.receipt} == model.refused
        leftovers = objects - model.held.keys()
        assert model.held.keys() <= objects
        is_allowed = model.eval_id in self._lingering | self._orphaned
        assert leftovers == set() or is_allowed, f"{leftovers} are still there"

    async def check_everything(self) -> None:
        """Compare every evaluation, verify the archive, and check all certificates."""
        for model in self.models.values():
            with self.blaming(model.eval_id):
                await self.compare(model)
        differences = await self._verify()
        for each in differences:
            if each.problem in {Problem.ORPHAN, Problem.MANIFEST_MISSING} and each.eval_id in self._orphaned:
                continue
            with self.blaming(each.eval_id):
                assert each.problem is Problem.DISPOSED_STILL_THERE, each
                assert each.eval_id in self._lingering, each
        await self._check_certificates()
        self.counts["verifications"] += 1

    async def _verify(self) -> list[Difference]:
        async with open_lister(self.settings) as lister:
            ctx = VerifyContext(self.bucket, lister, young=float("inf"))
            groups = group_objects(lister.walk(""))
            found = ordered_gather(64, partial(find_differences, ctx), groups)
            return [each async for some in found for each in some]

    async def _check_certificates(self) -> None:
        """Check that certificates list what is disposed of, each document once, with counts that are true."""
        listed = defaultdict[str, list[tuple[str, ModelDisposal]]](list)
        for model in self.models.values():
            for each in (await self._read(model.eval_id)).disposed if model.disposals else ():
                if each.receipt and model.eval_id not in self._lingering:
                    document = ModelDisposal(
                        each.kind, each.sha256, each.size, each.rule, each.due, _day(each.disposed_at)
                    )
                    listed[each.receipt].append((model.eval_id, document))
        for key, certificate in (await self._read_certificates()).items():
            own = listed.pop(key, [])
            documents = Counter((each["kind"], each["sha256"], each["size"]) for each in certificate["documents"])
            wanted = Counter((each.kind, each.sha256, each.size) for _, each in own)
            assert documents == wanted, f"{key} does not list what was disposed of"
            evaluations = {eval_id for eval_id, _ in own}
            with self.blaming(min(evaluations)):
                assert certificate["evaluations"] == len(evaluations), key
                assert certificate["bytes"] == sum(each.size for _, each in own), key
                assert {each.rule for _, each in own} == {certificate["rule"]}, key
                assert _day(certificate["disposed_from"]) == min(each.day for _, each in own), key
                assert _day(certificate["disposed_until"]) == max(each.day for _, each in own), key
        assert not listed, f"disposed of without a certificate: {dict(listed)}"

    async def _read_certificates(self) -> dict[str, Any]:
        keys = [each.key async for some in self.bucket.list_objects("receipts/disposals/") for each in some]
        found = {key: await self.bucket.read(key) for key in keys}
        return {key: orjson.loads(each.data) for key, each in found.items() if each}


def _disposal_of(record: DisposedRecord) -> ModelDisposal:
    return ModelDisposal(record.kind, record.sha256, record.size, record.rule, record.due, _day(record.disposed_at))


def _day(moment: str) -> dt.date:
    return dt.datetime.fromisoformat(moment).date()
