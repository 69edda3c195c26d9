"""The ledger keeps its invariants after any sequence of actions of workers, producers and operators, and of failures.

After every action, a ledger in a real Redis is compared with a model of plain dicts, and its invariants are checked.
``HYPOTHESIS_PROFILE=thorough`` runs ten thousand sequences instead of forty.

Leases run out, waits end and messages are lost by changing a score in Redis. With a short lease, the speed of the
machine would decide whether a lease has run out before the next action.
"""

import asyncio
import json
import os
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from redis.asyncio import Redis

from tasks.errors import LeaseLost
from tasks.ledger.cancellation import Cancellation
from tasks.ledger.counters import RunCounters
from tasks.ledger.ledger import Ledger
from tasks.ledger.runs import BeginResult
from tasks.ledger.script import LedgerScript
from tasks.model.evidence import EvaluationFacts
from tasks.model.job import EnqueueOptions, Failure, Job, Queue, Trigger
from tasks.model.outcome import Evidence, ManifestOutcome, Outcome

Action = tuple[str, dict[str, object]]
SEQUENCES = {"thorough": 10_000}.get(os.environ.get("HYPOTHESIS_PROFILE", ""), 40)
HOUR = 3600.0
PREFIX = "docv:ledger:"
ACCOUNTS = ("default", "kyb")
STATES = (
    *("queued:live", "queued:backfill", "leased", "parked"),
    *("held:live", "held:backfill", "held:live:kyb", "held:backfill:kyb"),
)

# Only a few of each, so that actions often affect the same ones.
EVAL_IDS = [f"0000000{n}-0000-4000-8000-000000000000" for n in range(3)]
LISTED = "listed"
RUNS = ("first", "second", LISTED)

several = st.lists(st.sampled_from(EVAL_IDS), min_size=1, max_size=6)
nth = st.integers(0, 5)
waits = st.sampled_from([0.0, 0.0, HOUR])
limits = st.sampled_from([1, 2, 1000])
settled = [outcome for outcome in Outcome if outcome not in {Outcome.FAILED, Outcome.UNCHANGED, Outcome.CANCELLED}]
outcomes = st.sampled_from(
    [*((outcome, None) for outcome in settled), *((Outcome.UNCHANGED, each) for each in ManifestOutcome)]
)
causes = st.sampled_from(["service_failed", "bundle_too_large"])
evidence = st.lists(st.sampled_from(Evidence), unique=True, max_size=2).map(tuple)
times = st.sampled_from([None, 10.0, 20.5])


def action(name: str, **arguments: st.SearchStrategy[object]) -> st.SearchStrategy[Action]:
    return st.tuples(st.just(name), st.fixed_dictionaries(arguments))


# One rule runs all actions. With several rules, Hypothesis omits some of them in each sequence, and a sequence
# without accepting, leasing and ending is useless.
accepts = action(
    "accept",
    named=several,
    queue=st.sampled_from(Queue),
    account=st.sampled_from(ACCOUNTS),
    run=st.sampled_from([None, *RUNS]),
    refresh=st.booleans(),
    even_if_erased=st.booleans(),
    refresh_outcomes=st.sampled_from(
        [(), (), (ManifestOutcome.REJECTED,), (ManifestOutcome.NO_DOCUMENTS, ManifestOutcome.REJECTED)]
    ),
    facts=st.dictionaries(st.sampled_from(EVAL_IDS), st.builds(EvaluationFacts, evidence, times), max_size=2),
    without_request=st.booleans(),
    delay=waits,
)
feeds = st.one_of(
    action("begin", again=st.booleans()),
    action("stop_feeding"),
    action("feed", count=st.integers(1, 2), backlog=st.sampled_from([2, 9])),
)
leasings = action("lease", named=several)
endings = st.one_of(
    action("complete", nth=nth, outcome=outcomes),
    action("retry_later", nth=nth, wait=waits),
    action("await_hold", nth=nth, suspect=st.booleans()),
    action("release", nth=nth),
    action("dead_letter", nth=nth, cause=causes),
)
others = st.one_of(
    action("extend", nths=st.lists(nth, max_size=3)),
    action("claim", limit=limits, of_live=st.sampled_from([0, 1, 1000]), of_backfill=st.sampled_from([0, 1, 1000])),
    action("time_passes", nth=nth),
    action("all_workers_are_dead"),
    action("refund_attempts", named=several),
    action("redrive", named=several),
    action("drop", named=several),
    action("erase", eval_id=st.sampled_from(EVAL_IDS)),
)
cancels = st.one_of(
    action("cancel_run", run=st.sampled_from(RUNS)),
    action("cancel_run_and_die", run=st.sampled_from(RUNS)),
    action("cancel", named=st.lists(st.sampled_from(EVAL_IDS), min_size=1, unique=True)),
)
# Choosing a kind first makes all kinds equally likely; otherwise most sequences would hardly lease anything.
# All kinds but the last are listed twice, so that less is cancelled.
actions = st.sampled_from([*[accepts, feeds, leasings, endings, others] * 2, cancels]).flatmap(lambda kind: kind)


@dataclass
class ModelEntry:
    """An evaluation in the model of the ledger."""

    queue: Queue
    refresh: bool
    trigger: Trigger
    runs: set[str] = field(default_factory=set)
    state: str = "queued"
    due: bool = False
    token: str | None = None
    attempts: int = 0
    lost: int = 0
    suspect: bool = False
    delayed: bool = False
    even_if_erased: bool = False
    refresh_outcomes: tuple[ManifestOutcome, ...] = ()
    again: "ModelEntry | None" = None
    account: str = "default"
    unnamed: bool = False
    orders: set[str] = field(default_factory=set)
    cancelled: dict[str, bool] = field(default_factory=dict)
    evidence: frozenset[Evidence] = frozenset()
    event_at: float | None = None
    without_request: bool = False

    @property
    def where(self) -> str:
        if self.state == "held" and self.account != "default":
            return f"held:{self.queue}:{self.account}"
        return f"{self.state}:{self.queue}" if self.state in {"queued", "held"} else self.state

    @property
    def waiting(self) -> bool:
        """Whether a worker with a message about the evaluation may lease it."""
        return self.state == "queued" or self.due

    def entry(self, eval_id: str) -> Job:
        assert self.token
        return Job(
            eval_id=eval_id,
            token=self.token,
            queue=self.queue,
            account=self.account,
            refresh=self.refresh,
            attempts=self.attempts,
            lost=self.lost,
            suspect=self.suspect,
            trigger=self.trigger,
            even_if_erased=self.even_if_erased,
            refresh_outcomes=self.refresh_outcomes,
            only_run=self.only_run,
            evidence=tuple(sorted(self.evidence)),
            event_at=self.event_at,
            without_request=self.without_request,
        )

    @property
    def only_run(self) -> str:
        """The run whose hold stops the evaluation."""
        stops = self.queue is Queue.BACKFILL and not self.unnamed and len(self.runs) == 1
        return next(iter(self.runs)) if stops else ""

    def merge_options(self, order: EnqueueOptions) -> None:
        self.even_if_erased |= order.even_if_erased
        self.refresh_outcomes = tuple(dict.fromkeys((*self.refresh_outcomes, *order.refresh_outcomes)))

    def add_facts(self, facts: EvaluationFacts) -> None:
        self.evidence |= set(facts.evidence)
        if facts.event_at is not None:
            self.event_at = max(self.event_at or 0.0, facts.event_at)

    def lacks_evidence(self, facts: EvaluationFacts) -> bool:
        """Return whether the facts have new evidence about missing documents."""
        new = set(facts.evidence) - self.evidence
        return bool(new - {Evidence.DOCV_STEP}) or (bool(new) and Evidence.NO_DOCV_STEP in self.evidence)

    def put(self, state: str, *, due: bool = False) -> None:
        self.state, self.due, self.token = state, due, None


@dataclass(frozen=True)
class ModelDeadLetter:
    """A dead letter in the model."""

    cause: str
    attempts: int
    was: ModelEntry


@dataclass(frozen=True)
class RedisState:
    """The state in Redis."""

    states: dict[str, set[str]]
    entries: set[str]
    dead: dict[str, str]
    causes: dict[str, list[str]]
    counters: dict[str, RunCounters]


class LedgerMachine(RuleBasedStateMachine):
    """A sequence of actions on a ledger and on its model."""

    def __init__(self, loop: asyncio.AbstractEventLoop, redis: Redis) -> None:
        super().__init__()
        self.do = loop.run_until_complete
        self.redis, self.ledger = redis, Ledger(redis)
        self.known: dict[str, ModelEntry] = {}
        self.dead: dict[str, ModelDeadLetter] = {}
        self.totals: Counter[str] = Counter()
        self.ended: Counter[tuple[str, Outcome]] = Counter()
        self.unchanged: Counter[tuple[str, ManifestOutcome]] = Counter()
        self.begun: BeginResult | None = None
        self.is_list_cancelled = False
        self.fed = 0
        self.unwanted: set[str] = set()
        self.cancelling: set[str] = set()
        self.cancellation = Cancellation(redis)
        self.leases: list[Job] = []
        self.do(redis.flushall())

    @rule(action=actions)
    def act(self, action: Action) -> None:
        name, arguments = action
        getattr(self, name)(**arguments)

    # -- actions of producers

    def accept(self, named: list[str], queue: Queue, account: str, run: str | None, **options: Any) -> None:
        order = EnqueueOptions(queue, account, Trigger("enqueue", run=run), **options)
        expected = [self._accept(each, order) for each in named]
        call = self.ledger.accept(named, order)
        assert self.do(call) == [each for each, publish in zip(named, expected, strict=True) if publish]

    def begin(self, *, again: bool) -> None:
        """Begin a run whose list has every ID; its name may have been used already."""
        if not self.begun:
            self.begun = BeginResult.CONFLICT if self.totals[LISTED] else BeginResult.CREATED
            self.totals[LISTED] += len(EVAL_IDS) if self.begun is BeginResult.CREATED else 0
            expected = self.begun
        elif self.is_list_cancelled:
            expected = BeginResult.CREATED if again else BeginResult.CANCELLED
            if again:
                self._begin_again()
        else:
            expected = BeginResult.CONFLICT if self.begun is BeginResult.CONFLICT else BeginResult.RESUMED
        call = self.ledger.runs.begin(LISTED, total=len(EVAL_IDS), fingerprint="its IDs", again=again)
        assert self.do(call) is expected
        assert self.do(self.ledger.runs.begin(LISTED, total=9, fingerprint="other IDs")) is BeginResult.CONFLICT
        assert self.do(self.ledger.runs.list_feeding()) == [LISTED] * bool(self.unfed)

    def _begin_again(self) -> None:
        under_way = sum(LISTED in self._runs_of(known) for known in self.known.values())
        self.totals[LISTED] = len(EVAL_IDS) + under_way + self.ended[LISTED, Outcome.FAILED]
        for outcome in set(Outcome) - {Outcome.FAILED}:
            del self.ended[LISTED, outcome]
        for each in ManifestOutcome:
            del self.unchanged[LISTED, each]
        self.is_list_cancelled, self.fed = False, 0
        self.unwanted.clear()
        self.cancelling.discard(LISTED)

    @property
    def unfed(self) -> int:
        """The number of IDs of the list that may still be fed."""
        has_list = self.begun is BeginResult.CREATED and not self.is_list_cancelled
        return len(EVAL_IDS) - self.fed if has_list else 0

    def stop_feeding(self) -> None:
        self.do(self.ledger.runs.stop_feeding(LISTED))
        assert self.do(self.ledger.runs.list_feeding()) == []

    def feed(self, count: int, backlog: int) -> None:
        """Feed some of the list, and then the same IDs again, as a second feeder would."""
        some, before = EVAL_IDS[self.fed :][:count], self.fed
        order = EnqueueOptions(Queue.BACKFILL, "default", Trigger("backfill", run=LISTED))
        expected = None
        if self.unfed and len(self.known) < backlog:
            wanted = [each for each in some if each not in self.unwanted]
            self.ended[LISTED, Outcome.CANCELLED] += len(some) - len(wanted)
            taken = [self._accept(each, order, listed=True) for each in wanted]
            expected = [each for each, publish in zip(wanted, taken, strict=True) if publish]
            self.fed += len(some)
        if some:
            for answer in expected, None:
                assert self.do(self.ledger.runs.feed(LISTED, some, order, position=before, backlog=backlog)) == answer
        assert self.do(self.ledger.runs.get_position(LISTED)) == self.fed

    def _accept(self, eval_id: str, order: EnqueueOptions, *, listed: bool = False) -> bool:
        known, run = self.known.get(eval_id), order.trigger.run
        facts = order.facts.get(eval_id, EvaluationFacts())
        if known is None:
            known = self.known[eval_id] = ModelEntry(order.queue, order.refresh, order.trigger, account=order.account)
            known.without_request = order.without_request
            known.merge_options(order)
            known.add_facts(facts)
            self._join(known, known, run, listed=listed)
            if letter := self.dead.pop(eval_id, None):
                known.suspect = True
                known.add_facts(EvaluationFacts(tuple(letter.was.evidence), letter.was.event_at))
            if letter and listed and LISTED in letter.was.runs:
                self.ended[LISTED, Outcome.FAILED] -= 1
                self.totals[LISTED] -= 1
            if order.delay:
                known.put("parked")
            return not order.delay
        known.cancelled.pop(run or "", None)
        needs_refresh = order.refresh or order.refresh_outcomes or order.even_if_erased or known.lacks_evidence(facts)
        needs_request = known.without_request and not order.without_request
        if (needs_refresh or needs_request) and known.state == "leased":
            if known.again:
                known.again.unnamed |= not (run and known.again.runs)
                known.again.without_request &= order.without_request
            else:
                known.again = ModelEntry(order.queue, refresh=False, trigger=order.trigger, account=known.account)
                known.again.without_request = order.without_request
            known.add_facts(facts)
            known.again.refresh |= order.refresh or (order.even_if_erased and not order.refresh_outcomes)
            known.again.merge_options(order)
            known.again.queue = min(known.again.queue, order.queue, key=list(Queue).index)
            known.again.delayed |= bool(order.delay)
            known.again.orders.add(run or "")
            self._join(known, known.again, run, listed=listed)
            return False
        known.refresh |= order.refresh
        known.unnamed |= not (run and known.runs)
        known.without_request &= order.without_request
        known.merge_options(order)
        known.add_facts(facts)
        self._join(known, known, run, listed=listed)
        if (order.queue, known.queue) != (Queue.LIVE, Queue.BACKFILL):
            return False
        known.queue = Queue.LIVE
        if known.state == "queued":
            known.due = False
        return known.state == "queued"

    def _join(self, known: ModelEntry, attempt: ModelEntry, run: str | None, *, listed: bool) -> None:
        if not run:
            return
        new = run not in self._runs_of(known)
        if new:
            attempt.runs.add(run)
        # The IDs of a list were counted when its run began.
        self.totals[run] += new - listed

    # -- actions of workers

    def lease(self, named: list[str]) -> None:
        token = f"message {len(self.leases)} of {named}"
        expected: list[Job] = []
        for eval_id in set(named):
            self._cancel_before_lease(eval_id)
        for eval_id in named:
            known = self.known.get(eval_id)
            if known and known.waiting:
                known.lost += known.state == "leased"
                known.put("leased")
                known.token = token
                expected.append(known.entry(eval_id))
        leased = self.do(self.ledger.lease(named, token=token))
        assert all((each.ordered_at is not None) == each.even_if_erased for each in leased)
        assert [replace(each, ordered_at=None) for each in leased] == expected
        self.leases += expected

    def extend(self, nths: list[int]) -> None:
        some = {lease.eval_id: lease for lease in map(self._lease, nths) if lease}.values()
        assert self.do(self.ledger.extend(some)) == [lease.eval_id for lease in some if not self._ours(lease)]
        for lease in some:
            if self._ours(lease):
                self.known[lease.eval_id].due = False

    def complete(self, nth: int, outcome: tuple[Outcome, ManifestOutcome | None]) -> None:
        self._change(
            nth,
            lambda lease: self.ledger.complete(lease, *outcome),
            lambda lease, known: self._finish(lease, known, *outcome),
        )

    def retry_later(self, nth: int, wait: float) -> None:
        def parked(lease: Job, known: ModelEntry) -> None:
            known.attempts += 1
            known.suspect = True
            self._put_back(lease, known, "parked", due=not wait)

        failure = Failure("service_failed", "RiskOS answered with status 500", 500)
        self._change(
            nth,
            lambda lease: self.ledger.retry_later(lease, wait=wait, attempts=lease.attempts + 1, failure=failure),
            parked,
        )

    def await_hold(self, nth: int, *, suspect: bool) -> None:
        def held(lease: Job, known: ModelEntry) -> None:
            known.suspect |= suspect
            self._put_back(lease, known, "held")

        self._change(nth, lambda lease: self.ledger.await_hold(lease, cause="account_held", suspect=suspect), held)

    def refund_attempts(self, named: list[str]) -> None:
        self.do(self.ledger.refund_attempts(named))
        for known in [self.known[eval_id] for eval_id in named if eval_id in self.known]:
            if known.state == "parked" and known.attempts:
                known.attempts -= 1
                known.put("held")

    def release(self, nth: int) -> None:
        self._change(nth, self.ledger.release, lambda lease, known: self._put_back(lease, known, "queued"))

    def dead_letter(self, nth: int, cause: str) -> None:
        def make_dead_letter(lease: Job, known: ModelEntry) -> None:
            if not known.again:
                self.dead[lease.eval_id] = ModelDeadLetter(cause, lease.attempts + 1, known)
            self._finish(lease, known, Outcome.FAILED)

        failure = Failure(cause)
        self._change(
            nth,
            lambda lease: self.ledger.dead_letter(lease, attempts=lease.attempts + 1, failure=failure),
            make_dead_letter,
        )

    def claim(self, limit: int, of_live: int, of_backfill: int) -> None:
        at_most = {Queue.LIVE: of_live, Queue.BACKFILL: of_backfill}
        held = {
            (account, queue): {
                eval_id
                for eval_id, known in self.known.items()
                if (known.state, known.account, known.queue) == ("held", account, queue)
            }
            for account in ACCOUNTS
            for queue in Queue
        }
        due = {eval_id for eval_id, known in self.known.items() if known.due}
        patience = dict.fromkeys(Queue, HOUR)
        of_held = dict.fromkeys(ACCOUNTS, at_most)
        claimed = self.do(self.ledger.claim(patience=patience, of_held=of_held, limit=limit))
        found = [eval_id for some in claimed.values() for eval_id in some]
        both = held["kyb", Queue.LIVE] or held["kyb", Queue.BACKFILL]
        share = -(-limit // 2) if both else limit
        may_go = sum(min(at_most[queue], share, len(some)) for (_, queue), some in held.items())
        assert len(found) == len(set(found)) == min(limit, len(due) + may_go)
        assert set(found) <= due.union(*held.values())
        assert all(len(some.intersection(found)) <= at_most[queue] for (_, queue), some in held.items())
        for eval_id in found:
            known = self.known[eval_id]
            assert eval_id in claimed[known.queue]
            known.lost += known.state == "leased"
            known.put("queued")

    # -- actions of operators: dead letters

    def redrive(self, named: list[str]) -> None:
        expected = [eval_id for eval_id in dict.fromkeys(named) if eval_id in self.dead]
        assert self.do(self.ledger.dead_letters.redrive(named)) == expected
        for eval_id in expected:
            was = self.dead.pop(eval_id).was
            self.ended.subtract((run, Outcome.FAILED) for run in was.runs)
            self.known[eval_id] = ModelEntry(
                was.queue,
                was.refresh,
                was.trigger,
                was.runs,
                suspect=True,
                even_if_erased=was.even_if_erased,
                refresh_outcomes=was.refresh_outcomes,
                account=was.account,
                unnamed=was.unnamed,
                evidence=was.evidence,
                event_at=was.event_at,
                without_request=was.without_request,
            )
            self.known[eval_id].put("parked", due=True)

    def drop(self, named: list[str]) -> None:
        expected = [eval_id for eval_id in dict.fromkeys(named) if eval_id in self.dead]
        assert self.do(self.ledger.dead_letters.drop(named)) == expected
        for eval_id in expected:
            del self.dead[eval_id]

    def erase(self, eval_id: str) -> None:
        known = self.known.get(eval_id)
        busy = known is not None and known.state == "leased" and not known.due
        assert self.do(self.ledger.erase(eval_id)) is not busy
        if busy:
            return
        self.dead.pop(eval_id, None)
        if known:
            self._count(self._runs_of(known), Outcome.UNCHANGED, ManifestOutcome.ERASED)
            del self.known[eval_id]

    # -- actions of operators: cancellations

    def cancel_run(self, run: str) -> None:
        self._stop(run)
        found = [self._cancel(eval_id, {run}, is_run=True) for eval_id in sorted(self.known)]
        self.cancelling.discard(run)
        counts = self.do(self.cancellation.cancel_run(run))
        if counts:
            assert (counts.cancelled, counts.in_flight) == (self.stopped + found.count(1), found.count(2))
        else:
            assert not self.totals[run]

    def cancel_run_and_die(self, run: str) -> None:
        self._stop(run)
        stopped = self.do(LedgerScript(self.redis).call("cancel_list", run))
        assert stopped == (self.stopped if self.totals[run] or run in self.cancelling else -1)

    def _stop(self, run: str) -> None:
        """Stop a run in the model, as the first step of a cancellation does."""
        self.stopped = self.unfed if run == LISTED else 0
        self.ended[run, Outcome.CANCELLED] += self.stopped
        if self.totals[run]:
            self.cancelling.add(run)
        if run == LISTED and self.begun is BeginResult.CREATED:
            self.is_list_cancelled = True
            self.unwanted.clear()

    def cancel(self, named: list[str]) -> None:
        """Cancel evaluations for all orders, including those of the list that are not fed."""
        if self.unfed:
            self.unwanted |= set(named)
        found = [self._cancel(eval_id, None) if eval_id in self.known else 0 for eval_id in named]
        counts = self.do(self.cancellation.cancel_evaluations(named))
        assert (counts.cancelled, counts.in_flight) == (found.count(1), found.count(2))

    def _cancel(self, eval_id: str, names: set[str] | None, *, is_run: bool = False) -> int:
        known = self.known[eval_id]
        orders = known.again.orders if known.again else set()
        if names is None:
            names = {"", *known.runs, *orders}
        if not names & (known.runs | orders) and "" not in names:
            return 0
        if known.again:
            self._count(known.again.runs & names, Outcome.CANCELLED, None)
            known.again.runs -= names
            known.again.orders -= names
            if not known.again.orders:
                known.again = None
        if known.state == "leased" and not known.due:
            marked = {name for name in names if name in known.runs or not name}
            known.cancelled |= dict.fromkeys(marked, is_run and names == {LISTED} and self.is_list_cancelled)
            return 2 if marked else 1
        self._cancel_waiting(eval_id, known, names)
        return 1

    def _cancel_waiting(self, eval_id: str, known: ModelEntry, names: set[str]) -> None:
        is_unnamed = (known.unnamed or not known.runs) and "" not in names
        self._count(known.runs & names, Outcome.CANCELLED, None)
        known.runs -= names
        known.unnamed, known.cancelled = is_unnamed, {}
        if not known.runs and not is_unnamed:
            self._replace(eval_id, known)

    def _names_cancelled(self, known: ModelEntry) -> set[str]:
        """Return the runs for which it was cancelled in flight, except a list that has begun again since then."""
        kept = {name for name, by_list in known.cancelled.items() if not by_list or self.is_list_cancelled}
        return kept | (known.runs & self.cancelling)

    def _cancel_before_lease(self, eval_id: str) -> None:
        known = self.known.get(eval_id)
        if known and (known.state != "leased" or known.due) and (names := self._names_cancelled(known)):
            self._cancel_waiting(eval_id, known, names)

    def _put_back(self, lease: Job, known: ModelEntry, state: str, *, due: bool = False) -> None:
        names = self._names_cancelled(known)
        if names:
            self._cancel_waiting(lease.eval_id, known, names)
        known.cancelled = {}
        if self.known.get(lease.eval_id) is known:
            known.put(state, due=due)

    # -- failures and the passing of time

    def time_passes(self, nth: int) -> None:
        """Make an evaluation due: its lease ran out, its wait ended, or its message was lost."""
        timed = {eval_id: known for eval_id, known in self.known.items() if known.state != "held"}
        if timed:
            eval_id = sorted(timed)[nth % len(timed)]
            self.do(self.redis.zadd(PREFIX + timed[eval_id].where, {eval_id: 1}, xx=True))
            timed[eval_id].due = True

    def all_workers_are_dead(self) -> None:
        leased = [known for known in self.known.values() if known.state == "leased"]
        assert self.do(self.ledger.end_leases()) == len(leased)
        for known in leased:
            known.due = True

    # -- leases in the model

    def _ours(self, lease: Job) -> bool:
        known = self.known.get(lease.eval_id)
        return known is not None and known.token == lease.token

    def _lease(self, nth: int) -> Job | None:
        """Return one of the valid leases, or the last lost one; None if there has been none."""
        ours = [lease for lease in self.leases if self._ours(lease)]
        some = ours + [lease for lease in self.leases if lease not in ours][-1:]
        return some[nth % len(some)] if some else None

    def _change(
        self, nth: int, change: Callable[[Job], Awaitable[None]], then: Callable[[Job, ModelEntry], object]
    ) -> None:
        """Change an evaluation in the ledger, and in the model if its lease is valid."""
        lease = self._lease(nth)
        if not lease:
            return
        if self._ours(lease):
            self.do(change(lease))
            then(lease, self.known[lease.eval_id])
        else:
            with pytest.raises(LeaseLost):
                self.do(change(lease))

    def _count(self, runs: set[str], outcome: Outcome, unchanged: ManifestOutcome | None) -> None:
        self.ended.update((run, outcome) for run in runs)
        if unchanged:
            self.unchanged.update((run, unchanged) for run in runs)

    def _finish(
        self, lease: Job, known: ModelEntry, outcome: Outcome, unchanged: ManifestOutcome | None = None
    ) -> None:
        self._count(known.runs, outcome, unchanged)
        self._replace(lease.eval_id, known)

    def _replace(self, eval_id: str, known: ModelEntry) -> None:
        """Remove an evaluation, or replace it with its next attempt."""
        if known.again:
            known.again.evidence, known.again.event_at = known.evidence, known.event_at
            self.known[eval_id] = known.again
            known.again.put("parked", due=not known.again.delayed)
        else:
            del self.known[eval_id]

    # -- the invariants

    @invariant()
    def the_invariants_hold(self) -> None:
        read = self.do(self._read())
        self._nothing_accepted_is_lost_and_each_evaluation_is_in_one_state(read)
        self._dead_letters_are_those_of_the_model(read)
        self._the_counters_of_each_run_add_up(read)

    async def _read(self) -> RedisState:
        async with self.redis.pipeline(transaction=True) as pipe:
            for state in STATES:
                pipe.zrange(PREFIX + state, 0, -1)
            pipe.hkeys(PREFIX + "entries")
            pipe.hgetall(PREFIX + "dead")
            *states, entries, dead = await pipe.execute()
        counters = {run: await self.ledger.runs.get_counters(run) for run in RUNS}
        causes = {
            cause: await self.ledger.dead_letters.list_by_cause(cause, 100)
            for cause in await self.ledger.dead_letters.count_causes()
        }
        assert {
            cause: len(eval_ids) for cause, eval_ids in causes.items()
        } == await self.ledger.dead_letters.count_causes()
        return RedisState(dict(zip(STATES, map(set, states), strict=True)), set(entries), dead, causes, counters)

    def _nothing_accepted_is_lost_and_each_evaluation_is_in_one_state(self, read: RedisState) -> None:
        assert read.states == {
            state: {eval_id for eval_id, known in self.known.items() if known.where == state} for state in STATES
        }
        assert read.entries == set(self.known)

    def _dead_letters_are_those_of_the_model(self, read: RedisState) -> None:
        letters = {eval_id: json.loads(text) for eval_id, text in read.dead.items()}
        found = {eval_id: (each["cause"], each["attempts"]) for eval_id, each in letters.items()}
        assert found == {eval_id: (each.cause, each.attempts) for eval_id, each in self.dead.items()}
        listed = {eval_id: cause for cause, eval_ids in read.causes.items() for eval_id in eval_ids}
        assert listed == {eval_id: each.cause for eval_id, each in self.dead.items()}

    def _the_counters_of_each_run_add_up(self, read: RedisState) -> None:
        for run, counters in read.counters.items():
            under_way = [known for known in self.known.values() if run in self._runs_of(known)]
            assert counters.total == self.totals[run]
            assert counters.outcomes == {outcome: self.ended[run, outcome] for outcome in Outcome}
            assert counters.unchanged_outcomes == {each: self.unchanged[run, each] for each in ManifestOutcome}
            assert sum(counters.unchanged_outcomes.values()) == counters.outcomes[Outcome.UNCHANGED]
            unfed = self.unfed if run == LISTED else 0
            assert counters.unfed == unfed
            assert counters.pending == len(under_way) + unfed
            states = Counter("queued" if run not in known.runs else known.state for known in under_way)
            assert counters.states == {state: states[state] for state in ("queued", "leased", "parked", "held")}

    @staticmethod
    def _runs_of(known: ModelEntry) -> set[str]:
        return known.runs | (known.again.runs if known.again else set())


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    with asyncio.Runner() as runner:
        yield runner.get_loop()


@pytest.fixture
def client(loop: asyncio.AbstractEventLoop, redis_url: str) -> Iterator[Redis]:
    client = Redis.from_url(redis_url, decode_responses=True)
    yield client
    loop.run_until_complete(client.aclose())


@pytest.mark.timeout(7200 if SEQUENCES > 1000 else 120)
def test_the_ledger_keeps_its_invariants_after_any_sequence_of_events(
    loop: asyncio.AbstractEventLoop, client: Redis
) -> None:
    run_state_machine_as_test(
        lambda: LedgerMachine(loop, client),
        settings=settings(
            max_examples=SEQUENCES,
            stateful_step_count=40,
        ),
    )
