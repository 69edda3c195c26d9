"""RiskOS answers some evaluations of a list without a bundle: neither the others nor live ones wait for them."""

import asyncio
import random
import statistics
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from scripts.simulator.scenarios import Scenario, eval_id_for
from tasks.ledger.refused_runs import list_refused_runs
from tasks.model.job import Queue
from tasks.model.outcome import Outcome
from tasks.resilience.holds import Holds, Reason
from tests.faults.cluster import Cluster, running_cluster
from tests.faults.scale import Scale

RATE = 200
RUN = "list"
IN_FLIGHT = 2 * 8
"""Two workers with eight slots each."""
SETTINGS = {"DOCV_RATE": str(RATE), "DOCV_ATTEMPTS": "3", "DOCV_LEASE_SECONDS": "120"}


@dataclass(frozen=True)
class Answer:
    """What RiskOS answers instead of a bundle, and how the evaluation ends.

    Attributes:
        scenario: of the simulator.
        ends_as: the outcome.
        hold: reason of the hold if all evaluations of a list get this answer.
        most: how many get it before that hold.
    """

    scenario: Scenario
    ends_as: Outcome
    hold: Reason
    most: int


ANSWERS = {
    "403": Answer(Scenario.FORBIDDEN_ALWAYS, Outcome.FAILED, Reason.FORBIDDEN, 20),
    "404": Answer(Scenario.NOT_FOUND, Outcome.NOT_FOUND, Reason.ONLY_REFUSALS, 200),
    "400 other": Answer(Scenario.REJECTED, Outcome.REJECTED, Reason.ONLY_REFUSALS, 200),
    "400 none": Answer(Scenario.NO_DOCUMENTS, Outcome.NO_DOCUMENTS, Reason.ONLY_REFUSALS, 200),
    "200 empty": Answer(Scenario.EMPTY_200_ALWAYS, Outcome.FAILED, Reason.OUTAGE, 1_000),
    "gateway's empty 404": Answer(Scenario.GATEWAY_404_ALWAYS, Outcome.FAILED, Reason.OUTAGE, 1_000),
}
every_answer = pytest.mark.parametrize("name", ANSWERS)
IN_SHORT = {"403", "400 none", "gateway's empty 404"}
"""One of each kind; the other answers are handled in the same way."""


@pytest.fixture
def answer(name: str, scale: Scale) -> Answer:
    if not scale.long and name not in IN_SHORT:
        pytest.skip("the short form tries one answer of each kind")
    return ANSWERS[name]


def make_list(total: int, bad: int, scenario: Scenario) -> list[str]:
    """Return a list with some evaluations of a scenario at random places."""
    kinds = [scenario] * bad + [Scenario.PASSPORT] * (total - bad)
    random.Random(7).shuffle(kinds)  # noqa: S311  # not a secret
    return [eval_id_for(kind, number) for number, kind in enumerate(kinds)]


@dataclass
class Live:
    """Live evaluations that arrive while a list is archived, and how many seconds each took."""

    cluster: Cluster
    lags: list[float] = field(default_factory=list)

    async def enqueue_repeatedly(self) -> None:
        for number in range(1_000_000, 2_000_000):
            eval_id, began = eval_id_for(Scenario.PASSPORT, number), time.monotonic()
            await self.cluster.enqueue([eval_id], run=f"live-{number % 8}")
            manifest = self.cluster.archive / "sandbox" / eval_id / "manifest.json"
            while not manifest.exists():
                await asyncio.sleep(0.02)
            self.lags.append(time.monotonic() - began)
            await asyncio.sleep(0.3)

    @property
    def p95(self) -> float:
        return statistics.quantiles(self.lags, n=20)[-1] if len(self.lags) > 1 else max(self.lags, default=0.0)


@asynccontextmanager
async def archiving(
    folder: Path, eval_ids: Sequence[str], scale: Scale, *, live: bool
) -> AsyncIterator[tuple[Cluster, Live]]:
    """Have two workers archive a list while live evaluations arrive."""
    async with AsyncExitStack() as stack:
        retry_seconds = "5" if scale.long else "0.3"
        cluster = await stack.enter_async_context(running_cluster(folder, **SETTINGS, DOCV_RETRY_SECONDS=retry_seconds))
        await cluster.start_workers(2)
        arrivals = Live(cluster)
        task = asyncio.create_task(arrivals.enqueue_repeatedly()) if live else None
        await cluster.enqueue(eval_ids, run=RUN, queue=Queue.BACKFILL)
        yield cluster, arrivals
        while task and not task.done():
            task.cancel()  # once is not enough: redis-py waits with Python 3.11's wait_for, which may swallow it
            await asyncio.wait([task], timeout=1)


async def wait_until_archived(cluster: Cluster, count: int, seconds: float) -> float:
    """Wait until this many evaluations of the list are archived; return how many seconds it took."""
    began = time.monotonic()
    async with asyncio.timeout(seconds):
        while (await cluster.ledger.runs.get_counters(RUN)).outcomes[Outcome.ARCHIVED] < count:
            await asyncio.sleep(0.05)
    return time.monotonic() - began


async def measure_good_list(folder: Path, total: int, scale: Scale) -> float:
    """Return how many seconds the list takes if all evaluations get a bundle."""
    async with archiving(folder, make_list(total, 0, Scenario.PASSPORT), scale, live=True) as (cluster, _):
        return await wait_until_archived(cluster, total, seconds=total / RATE * 5 + 30)


@pytest.fixture(scope="module")
def good(scale: Scale, tmp_path_factory: pytest.TempPathFactory) -> float | None:
    """The time that the list takes if all evaluations get a bundle; only the long form compares."""
    if not scale.long:
        return None
    return asyncio.run(measure_good_list(tmp_path_factory.mktemp("good"), 10_000, scale))


@every_answer
async def test_evaluations_do_not_wait_when_others_have_no_bundle(
    scale: Scale, figures: Callable[[str], None], name: str, answer: Answer, good: float | None, tmp_path: Path
) -> None:
    total = 10_000 if scale.long else 100
    for bad in (1, total // 100, total // 2) if scale.long else (total // 2,):
        eval_ids = make_list(total, bad, answer.scenario)
        async with archiving(tmp_path / f"{bad}", eval_ids, scale, live=True) as (cluster, live):
            seconds = await wait_until_archived(cluster, total - bad, seconds=600)
            extra = cluster.riskos.stats().requests - total - len(live.lags)
            counters = await cluster.wait_until_all_ended(RUN, total, seconds=600)
            p95 = live.p95
        ended = {outcome: count for outcome, count in counters.outcomes.items() if count}
        assert ended == {Outcome.ARCHIVED: total - bad, answer.ends_as: bad}
        figures(
            f"{name} for {bad:,} of {total:,}: the others after {seconds:.1f} s"
            + (f", {good:.1f} s if all are good" if good else "")
            + f", {max(0, extra):,} more requests by then, live p95 {p95:.2f} s"
        )
        if good:
            assert p95 <= 5
            assert seconds <= good * 1.05 + max(0, extra) / RATE * 1.05


@every_answer
async def test_a_list_is_put_on_hold_when_no_evaluation_has_a_bundle(
    scale: Scale, figures: Callable[[str], None], name: str, answer: Answer, tmp_path: Path
) -> None:
    total = 10_000 if scale.long else 300
    eval_ids = make_list(total, total, answer.scenario)
    # Live evaluations share their account's hold; the hold of the run does not affect them.
    is_of_run = answer.hold is Reason.ONLY_REFUSALS
    async with archiving(tmp_path / "stage", eval_ids, scale, live=is_of_run) as (cluster, live):
        async with asyncio.timeout(120):
            while not await reason_of_hold(cluster, is_of_run=is_of_run):
                await asyncio.sleep(0.05)
        assert await reason_of_hold(cluster, is_of_run=is_of_run) == answer.hold
        await asyncio.sleep(10 if scale.long else 2)
        requests = [cluster.riskos.stats().by_evaluation.get(each, 0) for each in eval_ids]
        counters, p95 = await cluster.ledger.runs.get_counters(RUN), live.p95
    figures(
        f"{name} for all of {total:,}: on hold ({answer.hold}) after {sum(requests):,} requests, live p95 {p95:.2f} s"
    )
    assert sum(requests) <= answer.most + IN_FLIGHT
    assert counters.outcomes[Outcome.FAILED] == 0
    if is_of_run:
        assert counters.total - counters.pending == sum(requests)
        assert p95 <= 5
    else:
        assert counters.pending == total
        assert not list(cluster.archive.glob("sandbox/*/manifest.json"))


async def reason_of_hold(cluster: Cluster, *, is_of_run: bool) -> Reason | None:
    if is_of_run:
        return Reason.ONLY_REFUSALS if await list_refused_runs(cluster.client) else None
    hold = await Holds(cluster.client).get("default")
    return hold.reason if hold else None
