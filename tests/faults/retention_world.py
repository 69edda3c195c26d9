"""Run the product's own code on a folder or a bucket under a retention schedule for years, on a simulated clock.

A seed decides everything that happens, and the model records it as well. The two are compared after each application.
"""

import asyncio
import contextlib
import datetime as dt
import heapq
import io
import random
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from typing import Any
from uuid import UUID

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
from tasks.bundle.unpacker import BundleUnpacker
from tasks.bundle.zip import Limits
from tasks.model.account import Account
from tasks.model.evaluation import ENVIRONMENTS, Evaluation
from tasks.model.job import Job, Queue, Trigger
from tasks.pipeline.pipeline import PipelineContext, archive
from tasks.pipeline.retention import RetentionPolicy
from tasks.pipeline.upload import UploadTarget
from tasks.resilience.archive_gate import ArchiveGate
from tasks.retention.schedule import Schedule
from tasks.storage.bucket import AlreadyExists, Bucket, ObjectAttributes
from tasks.storage.manifest import read_manifest
from tasks.storage.matter import begin_release, complete_release, create_matter, record_addition
from tests.faults.archive_check import ArchiveCheck, evaluation_of, read_existing
from tests.faults.kill_switch import KillSwitch
from tests.faults.locked_bucket import LOCK_DAYS, LockedBucket
from tests.faults.retention_model import EVENTS, RULES, Document, EvaluationModel, Named
from tests.faults.scripted_riskos import ScriptedRiskOS
from tests.faults.simulated_clock import SimulatedClock
from tests.scripts.erase.test_erasure import SimulatedCrash
from tests.scripts.retention.disposals import OPERATOR
from worker.config.settings import Settings

FIRST_DAY = dt.date(2024, 1, 2)
_HOURS = (0, 0, 9, 22)
"""Hours at which a day's work begins; it takes minutes."""
_ENVIRONMENTS = {"eu": "sandbox", "us": "production"}
SCHEDULE = Schedule.model_validate({"max_per_run": 1_000_000, "rule": [each.table() for each in RULES]})


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
        has_leap_days: whether something also happens around each February 29.
        is_aligned: whether every evaluation is archived on the day on which it was captured, so that documents are due
            on few days.
        is_checked_daily: whether each application is followed by a comparison of all evaluations.
    """

    evaluations: int
    years: int = 12
    busy_days: int = 100
    actions: int = 8
    verify_days: int = 365
    plans: int = 5
    has_leap_days: bool = True
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
        find_documents: returns kind and hash of each object of an evaluation, even if its manifest does not list it.
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
    _jobs: defaultdict[str, list[Job]] = field(default_factory=lambda: defaultdict(list))
    _matters: dict[str, list[str]] = field(default_factory=dict)
    _plans: list[tuple[Plan, Named]] = field(default_factory=list)
    _erased_at: dict[str, float] = field(default_factory=dict)
    _lingering: set[str] = field(default_factory=set)
    _orphaned: set[str] = field(default_factory=set)
    _interrupted: bool = False

    def __post_init__(self) -> None:
        self.dice = random.Random(self.seed)  # noqa: S311  # not a secret
        self._riskos = ScriptedRiskOS(self.dice)
        self._check = ArchiveCheck(
            self.settings, self.bucket, self.models, self.find_documents, self._lingering, self._orphaned
        )
        self._numbers = count()
        last = FIRST_DAY + dt.timedelta(days=365 * self.size.years)
        busy = {
            FIRST_DAY + dt.timedelta(days=self.dice.randrange((last - FIRST_DAY).days))
            for _ in range(self.size.busy_days)
        }
        if self.size.has_leap_days:
            days = (2, 28), (2, 29), (3, 1)
            busy |= {dt.date(year, month, day) for year in range(2024, last.year, 4) for month, day in days}
        self.busy_days = sorted(busy)
        self.last_day = last
        for _ in range(self.size.evaluations):
            self._plan_evaluation()
        for _ in range(self.size.plans):
            self._put_on_agenda(self.dice.choice(self.busy_days), next(iter(self.models)), "plan")

    def _plan_evaluation(self) -> None:
        dice, eval_id = self.dice, str(UUID(int=self.dice.getrandbits(128)))
        first = dice.randrange(len(self.busy_days) * 2 // 3)
        days_before = 0 if self.size.is_aligned else dice.choice([0, 0, 1, 30, 700])
        captured = self.busy_days[first] - dt.timedelta(days=days_before) if dice.random() < 0.7 else None
        run = "disputed" if dice.random() < 0.1 else "q3"
        account = dice.choice(list(_ENVIRONMENTS))
        self.models[eval_id] = EvaluationModel(eval_id, account, _ENVIRONMENTS[account], run, captured)
        self._riskos.begin(eval_id)
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
        async def open_killable(_: Settings) -> Any:
            yield self._switch.wrap(self.bucket)

        patch.setattr(apply_command, "open_archive_bucket", open_killable)
        for module in (apply_command, deferred_erasures):
            patch.setattr(module, "open_versions", lambda settings: self._switch.wrap(open_versions(settings)))

    # -- time

    async def run_all_years(self) -> None:
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
                await self._compare_all()
                verified = self.today
            day = self._find_next_day()
        if self._interrupted:
            self.clock.set_day(self.today + dt.timedelta(days=1), 0)
            await self._apply()
        await self._compare_all()

    async def _compare_all(self) -> None:
        await self._check.compare_all()
        self.counts["verifications"] += 1

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
            with self.models[eval_id].with_history():
                await self._do(action, eval_id)

    async def _do(self, action: str, eval_id: str) -> None:  # noqa: C901  # a line for each action
        self.counts[action.partition(" m-")[0]] += 1
        match action:
            case "archive":
                await self._order(eval_id)
            case "refresh":
                self._riskos.change(eval_id)
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

    def _note(self, eval_id: str, what: str) -> None:
        self.models[eval_id].history.append(f"{self.today} {what}")

    async def _run_killable(self, work: Callable[[], Awaitable[Any]], most_steps: int, chance: float) -> bool:
        """Carry out work, and perhaps kill it; return whether it was killed."""
        if self.dice.random() < chance:
            self._switch.steps_left = self.dice.randrange(most_steps)
            self._switch.is_before = self.dice.random() < 0.5
        try:
            await work()
        except SimulatedCrash:
            self.counts["killed"] += 1
            return True
        finally:
            self._switch.steps_left = None
        return False

    async def _run_until_complete(self, work: Callable[[], Awaitable[Any]], most_steps: int, chance: float) -> None:
        """Carry out work; if it is killed, carry it out again."""
        while await self._run_killable(work, most_steps, chance):
            pass

    # -- orders

    async def _order(self, eval_id: str, *, refresh: bool = False, even_if_erased: bool = False) -> None:
        model, ordered_at = self.models[eval_id], self.clock.seconds()
        captured = model.captured and dt.datetime.combine(model.captured, dt.time(23), dt.UTC).timestamp()
        trigger = Trigger("run", run=model.run)
        job = Job(eval_id, "token", Queue.LIVE, model.account, refresh, 0, 0, trigger, event_at=captured)
        job = replace(job, even_if_erased=even_if_erased, ordered_at=ordered_at)
        self._jobs[eval_id].append(job)
        await self._attempt(job)

    async def _replay(self, eval_id: str) -> None:
        """Carry out all earlier orders again, as after a restore of an older Redis."""
        for job in list(self._jobs[eval_id]):
            await self._attempt(job)

    async def _attempt(self, job: Job) -> None:
        model = self.models[job.eval_id]
        documents = self._riskos.sizes(job.eval_id)
        is_covered = job.even_if_erased and self._erased_at.get(job.eval_id, 0.0) < (job.ordered_at or 0.0)
        is_requested = is_covered if model.is_erased else job.refresh or not model.is_archived
        work = partial(archive, job, self._make_context(model.account))
        if is_requested and self.dice.random() < 0.04 and await self._leave_orphans(job, work):
            return
        orphans = self._find_orphans(model)
        await self._run_until_complete(work, 8, 0.1)
        names = sorted(f"{kind} {sha256[:6]}" for kind, sha256 in documents)
        self._note(job.eval_id, f"order: {', '.join(names) if is_requested else 'no request to RiskOS'}")
        if is_requested:
            model.deliver(documents, self.today, orphans)
            self.counts["answers of RiskOS"] += 1
            if not self._find_orphans(model):
                self._orphaned.discard(job.eval_id)

    def _find_orphans(self, model: EvaluationModel) -> set[Document]:
        """Return the documents that interrupted attempts have left."""
        is_orphaned = model.eval_id in self._orphaned
        return self.find_documents(evaluation_of(model)) - model.held.keys() if is_orphaned else set()

    async def _leave_orphans(self, job: Job, work: Callable[[], Awaitable[Any]]) -> bool:
        """Kill an attempt before it writes its manifest, and retry it on a later day; return whether that worked."""
        evaluation = self._evaluation(job.eval_id)
        before = await read_manifest(self.bucket, evaluation)
        if not await self._run_killable(work, 4, 1):
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
        client = self._riskos.client(known)
        gate = ArchiveGate(None, None)  # type: ignore[arg-type]  # it is never closed
        policy = RetentionPolicy(SCHEDULE, LOCK_DAYS if self.locked else None, self.clock.today)
        return PipelineContext(client, gate, UploadTarget(bucket), bucket, BundleUnpacker(Limits()), retention=policy)

    # -- events, legal holds, erasures

    async def _report(self, eval_id: str) -> None:
        model, event = self.models[eval_id], self.dice.choice(EVENTS)
        days = [each for each in self.busy_days if each <= self.today]
        day = None if self.dice.random() < 0.15 else self.dice.choice(days)
        recorder = EventRecorder(self._switch.wrap(self.bucket), model.environment, "records")
        results: list[object] = []

        async def record() -> None:
            results[:] = await recorder.record([ReportRow("line 1", eval_id, event, day)])

        await self._run_until_complete(record, 2, 0.1)
        self._note(eval_id, f"report: {event} {day}")
        assert isinstance(results[0], RefusedRow) == (model.is_erased or not model.is_known)
        model.report(event, day, self.today)

    async def _hold(self, eval_id: str) -> None:
        matter, even_if_absent = f"m-{next(self._numbers)}", self.dice.random() < 0.5
        members = sorted({eval_id, self.dice.choice(list(self.models))})
        await self._run_until_complete(partial(self._hold_all, matter, members, even_if_absent=even_if_absent), 8, 0.2)
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
        for each in map(self._evaluation, members):
            if (await holder.look_up(each)).is_new:
                await record_addition(bucket, matter, each.environment, [each.eval_id], "counsel")
            model = self.models[each.eval_id]
            is_refused = model.is_erased or not (model.is_known or even_if_absent)
            assert bool((await holder.hold(each)).why) == is_refused

    async def _release(self, matter: str) -> None:
        await self._run_until_complete(partial(self._release_all, matter), 6, 0.2)
        for each in self._matters.pop(matter):
            self._note(each, f"release: {matter}")
            self.models[each].matters.discard(matter)

    async def _release_all(self, matter: str) -> None:
        """Do what `legal-hold release` does."""
        bucket = self._switch.wrap(self.bucket)
        await begin_release(bucket, matter, "settled", "counsel")
        for each in map(self._evaluation, self._matters[matter]):
            assert (await Holder(bucket, self.locked and self.locked.archive, matter).release(each)).why is None
        await complete_release(bucket, matter)

    async def _erase(self, eval_id: str) -> None:
        model, evaluation = self.models[eval_id], self._evaluation(eval_id)
        if not model.is_known:
            return
        self._read_locks(model)
        request = ErasureRequest("request 4711", "operator", "a-host", when_allowed=self.dice.random() < 0.7)
        results: list[object] = []

        async def erase() -> None:
            results.append(await erase_one(evaluation, request, self._make_stores()))

        await self._run_until_complete(erase, 12, 0.2)
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
        """Record in the model which objects S3 locks, and until when."""
        if self.locked:
            locks = self.locked.find_locks(evaluation_of(model))
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
        model, after = self.models[eval_id], await read_existing(self.bucket, self._evaluation(eval_id))
        self._note(eval_id, "erased")
        self.counts["erasures"] += 1
        assert after.erased, "it has no marker"
        self._erased_at[eval_id] = after.erased.at_seconds
        model.erase()
        self._orphaned.discard(eval_id)

    def _evaluation(self, eval_id: str) -> Evaluation:
        return evaluation_of(self.models[eval_id])

    # -- applications

    async def _make_plan(self) -> None:
        """Write a plan, which is applied later."""
        for model in self.models.values():
            self._read_locks(model)
        file, until = io.BytesIO(), self.today + dt.timedelta(days=self.dice.choice([0, 30, 200]))
        await self._survey().run(self.bucket, until, out=file)
        named = {
            model.eval_id: {
                (*each, decision.rule.name) for each, decision in model.due_on(until).items() if decision.rule
            }
            for model in self.models.values()
        }
        plan = read_plan(file)
        planned = {
            each.eval_id: {(document.kind, document.sha256, document.rule) for document in each.documents}
            for each in plan.evaluations()
        }
        for eval_id in self.models:
            with self.models[eval_id].with_history():
                found = planned.get(eval_id, set())
                assert found == named[eval_id], f"the plan until {until} names {found}, the model {named[eval_id]}"
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
        """Run the daily application if it has anything to do, and sometimes even if it has not."""
        has_work = self._interrupted or any(map(self._may_change, self.models.values()))
        if not has_work and self.dice.random() < (0.3 if self._count_locked() else 0.8):
            return
        surveys = [self._survey() for _ in range(2 if self.dice.random() < 0.05 else 1)]

        async def apply() -> int:
            # With two machines, no write is late: after one of them has finished, a worker has lost its lease.
            work = [apply_due(each, self._make_options(may_be_late=len(surveys) == 1)) for each in surveys]
            codes = await asyncio.gather(*work, return_exceptions=True)  # so that none continues if the other is killed
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
        """Run an application, which may be killed, and compare the result with the model."""
        changing = [model for model in self.models.values() if self._may_change(model)]
        codes: list[int] = []

        async def work() -> None:
            codes.append(await apply())

        self._interrupted = await self._run_killable(work, 4 + 8 * len(changing), 0.2)
        self.counts["applications"] += 1
        self.counts["kept by a lock"] += self._count_locked()
        for model in changing:
            with model.with_history():
                await self._record_application(model, None if named is None else named.get(model.eval_id, ()))
        assert self._interrupted or codes == [0]
        for model in self.models.values() if self.size.is_checked_daily else changing:
            with model.with_history():
                await self._check.compare(model)

    async def _record_application(self, model: EvaluationModel, named: Collection[tuple[str, str, str]] | None) -> None:
        """Record the effect of an application on an evaluation; a killed one may have done only a part."""
        going = model.select_disposals(self.today, named)
        may_erase = model.is_waiting and not model.matters and model.erasable_from <= self.today
        if self._interrupted:
            self._lingering.add(model.eval_id)
            manifest = await read_existing(self.bucket, evaluation_of(model))
            may_erase = may_erase and manifest.erased is not None
            gone = {each.sha256 for each in manifest.disposed}
            going = (
                going if manifest.erased else {each: decision for each, decision in going.items() if each[1] in gone}
            )
        elif not model.matters:
            self._lingering.discard(model.eval_id)
        if going:
            self.counts["disposed of"] += len(going)
            names = sorted(f"{kind} {sha256[:6]}" for kind, sha256 in going)
            self._note(model.eval_id, f"disposed of: {', '.join(names)}")
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
        """Store documents again that were disposed of since a time, like a worker that had read the manifest before."""
        for model in self.models.values():
            if not model.matters and model.due_on(self.today) and self.dice.random() < 0.5:
                for each in (await read_existing(self.bucket, evaluation_of(model))).disposed:
                    if dt.datetime.fromisoformat(each.disposed_at) >= since and each.receipt:
                        self.counts["stored again meanwhile"] += 1
                        with contextlib.suppress(AlreadyExists):
                            await self.bucket.create(each.key, b"late", ObjectAttributes("image/jpeg"))
