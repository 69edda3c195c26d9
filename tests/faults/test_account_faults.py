"""The key, the quota or RiskOS itself fails for all evaluations of an account: none of them loses an attempt."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from scripts.simulator.scenarios import Scenario, eval_id_for
from tasks.model.job import Queue
from tasks.model.outcome import Outcome
from tasks.resilience.holds import Holds, Reason, backfill_of, hold_key
from tests.faults.check import FolderArchive, examine
from tests.faults.cluster import Cluster, running_cluster
from tests.faults.scale import Scale
from tests.faults.watching import count_lost_attempts, wait_until_half_ended, wait_until_held

_DAY_MS = 24 * 3600 * 1000
_RUN = "fault"


def evaluations(count: int, scenario: Scenario = Scenario.PASSPORT) -> list[str]:
    return [eval_id_for(scenario, number) for number in range(count)]


async def test_a_refused_key_costs_no_attempts(scale: Scale, figures: Callable[[str], None], tmp_path: Path) -> None:
    eval_ids = evaluations(1000 if scale.long else 300)
    async with running_cluster(tmp_path / "stage", DOCV_RATE="100") as cluster:
        await cluster.start_workers(2)
        await cluster.enqueue(eval_ids, run=_RUN, queue=Queue.BACKFILL)
        await wait_until_half_ended(cluster, _RUN, len(eval_ids))
        cluster.riskos.change(refuse_with=401)
        began = time.monotonic()
        await wait_until_held(cluster, Reason.UNAUTHORIZED)
        await asyncio.sleep(1.5)
        before = cluster.riskos.stats()
        await asyncio.sleep(scale.outage)
        during = cluster.riskos.stats().requests - before.requests
        lost = await count_lost_attempts(cluster)
        cluster.riskos.change(refuse_with=None)
        lasted = time.monotonic() - began
        if not scale.long:
            assert await Holds(cluster.client).end("default"), "as `docv-archive resume` does"
        await cluster.wait_until_all_ended(_RUN, len(eval_ids), seconds=120)
        result = await asyncio.to_thread(examine, FolderArchive(cluster.archive), eval_ids)
        refused = cluster.riskos.stats().by_status[401]
    figures(
        f"401 for {lasted:.0f} s: {refused} requests refused, {during} of them probes, "
        f"attempts lost {lost}, {result.sentence()}"
    )
    assert result.is_sound, result
    assert lost == 0
    assert during <= 1 + scale.outage / 30, "one probe at a time, after growing pauses"


async def test_riskos_makes_no_dead_letters_when_it_fails_all_requests(
    scale: Scale, figures: Callable[[str], None], tmp_path: Path
) -> None:
    eval_ids = evaluations(1000 if scale.long else 300)
    async with running_cluster(tmp_path / "stage", DOCV_RATE="100", DOCV_RETRY_SECONDS="5") as cluster:
        await cluster.start_workers(2)
        await cluster.enqueue(eval_ids, run=_RUN, queue=Queue.BACKFILL)
        await wait_until_half_ended(cluster, _RUN, len(eval_ids))
        before, began = cluster.riskos.stats().requests, time.monotonic()
        cluster.riskos.change(refuse_with=500)
        await wait_until_held(cluster, Reason.OUTAGE)
        await asyncio.sleep(scale.outage)
        requests = cluster.riskos.stats().requests - before
        lasted, lost = time.monotonic() - began, await count_lost_attempts(cluster)
        cluster.riskos.change(refuse_with=None)
        counters = await cluster.wait_until_all_ended(_RUN, len(eval_ids), seconds=200)
        result = await asyncio.to_thread(examine, FolderArchive(cluster.archive), eval_ids)
    figures(
        f"RiskOS 100 % 500 for {lasted:.0f} s: {requests} requests ({requests / lasted:.1f}/s), dead letters "
        f"{counters.outcomes[Outcome.FAILED]}, attempts lost {lost}, {result.sentence()}"
    )
    assert result.is_sound, result
    assert counters.outcomes[Outcome.FAILED] == 0
    assert lost == 0
    if scale.long:
        assert requests / lasted <= 5


async def test_a_configured_quota_is_never_exceeded_and_is_renewed_on_the_next_day(
    scale: Scale, figures: Callable[[str], None], tmp_path: Path
) -> None:
    eval_ids, live = evaluations(300), evaluations(40, Scenario.FLAT)
    async with running_cluster(tmp_path / "stage", DOCV_DAILY_QUOTA="200", DOCV_LIVE_RESERVE="0.1") as cluster:
        await cluster.start_workers(2)
        await cluster.enqueue(eval_ids, run=_RUN, queue=Queue.BACKFILL)
        await wait_until_held(cluster, Reason.QUOTA, scope=backfill_of("default"))
        await asyncio.sleep(1)  # the last permit was granted, but its request may be in flight
        by_backfill = cluster.riskos.stats().requests
        await cluster.enqueue(live, run="live")
        await wait_until_held(cluster, Reason.QUOTA)
        await asyncio.sleep(1.5)
        by_all, lost = cluster.riskos.stats().requests, await count_lost_attempts(cluster)
        await move_quota_back_a_day(cluster)
        await cluster.wait_until_all_ended(_RUN, len(eval_ids))
        await cluster.wait_until_all_ended("live", len(live))
        result = await asyncio.to_thread(examine, FolderArchive(cluster.archive), [*eval_ids, *live])
        total = cluster.riskos.stats().requests
    figures(
        f"quota of 200, a tenth for live evaluations: backfill stopped after {by_backfill}, all after {by_all}, "
        f"next day {total - by_all}, attempts lost {lost}, {result.sentence()}"
    )
    assert result.is_sound, result
    assert (by_backfill, by_all, total, lost) == (180, 200, 340, 0)


async def move_quota_back_a_day(cluster: Cluster) -> None:
    """Move the quota and the holds in Redis a day into the past."""
    await cluster.client.hincrby("docv:quota:default", "since", -_DAY_MS)
    await cluster.client.delete(hold_key("default"), hold_key(backfill_of("default")))


async def test_a_quota_that_only_riskos_knows_is_detected_from_its_refusals(
    figures: Callable[[str], None], tmp_path: Path
) -> None:
    eval_ids = evaluations(150)
    async with running_cluster(tmp_path / "stage", DOCV_RATE="200") as cluster:
        cluster.riskos.change(quota=100, day_seconds=600, header_style="standard")
        await cluster.start_workers(2)
        await cluster.enqueue(eval_ids, run=_RUN, queue=Queue.BACKFILL)
        await wait_until_held(cluster, Reason.QUOTA)
        await asyncio.sleep(1.5)
        spent, lost = cluster.riskos.stats(), await count_lost_attempts(cluster)
        cluster.riskos.change(quota=None)
        await cluster.client.delete(hold_key("default"))
        await cluster.wait_until_all_ended(_RUN, len(eval_ids))
        result = await asyncio.to_thread(examine, FolderArchive(cluster.archive), eval_ids)
    figures(
        f"quota of 100 that only RiskOS knows: granted {spent.granted}, refused {spent.refused_by_quota}, "
        f"attempts lost {lost}, {result.sentence()}"
    )
    assert result.is_sound, result
    assert (spent.granted, lost) == (100, 0)
    assert spent.refused_by_quota <= 16, "at most the requests in flight"


async def test_a_quota_of_riskos_holds_the_backfill_before_it_is_spent_until_the_next_day(
    figures: Callable[[str], None], tmp_path: Path
) -> None:
    eval_ids = evaluations(150)
    settings = {"DOCV_RATE": "200", "DOCV_LIVE_RESERVE": "0.1", "DOCV_LEAVE_DAILY": "5"}
    async with running_cluster(tmp_path / "stage", **settings) as cluster:
        cluster.riskos.change(quota=100, day_seconds=600)
        await cluster.start_workers(2)
        await cluster.enqueue(eval_ids, run=_RUN, queue=Queue.BACKFILL)
        await wait_until_held(cluster, Reason.QUOTA, scope=backfill_of("default"))
        await asyncio.sleep(1.5)
        spent, lost = cluster.riskos.stats(), await count_lost_attempts(cluster)
        cluster.riskos.change(quota=10_000)
        for field in ("look_at", "low_at"):
            await cluster.client.hincrby("docv:quota:default", field, -15 * 60 * 1000)
        await cluster.client.delete(hold_key(backfill_of("default")))
        await cluster.wait_until_all_ended(_RUN, len(eval_ids))
        result = await asyncio.to_thread(examine, FolderArchive(cluster.archive), eval_ids)
    figures(
        f"day of 100, 5 left to others, a tenth for live evaluations: backfill stopped after {spent.granted}, refused "
        f"{spent.refused_by_quota}, attempts lost {lost}, {result.sentence()}"
    )
    assert result.is_sound, result
    assert 70 <= spent.granted <= 86, "the first answer shows the quota; requests in flight by then count, too"
    assert (spent.refused_by_quota, lost) == (0, 0)


async def test_an_account_is_held_as_not_activated_when_riskos_grants_no_request(tmp_path: Path) -> None:
    eval_ids = evaluations(20)
    async with running_cluster(tmp_path / "stage", DOCV_RATE="100") as cluster:
        cluster.riskos.change(rate=0)
        await cluster.start_workers(1)
        await cluster.enqueue(eval_ids, run=_RUN)
        await wait_until_held(cluster, Reason.NOT_ACTIVATED)
        await asyncio.sleep(1)
        assert cluster.riskos.stats().requests <= 8
        assert await count_lost_attempts(cluster) == 0


@pytest.mark.parametrize(("style", "most"), [("none", 40), ("riskos", 8), ("standard", 8), ("x", 8)])
async def test_the_rate_decreases_when_riskos_grants_less(
    scale: Scale, figures: Callable[[str], None], tmp_path: Path, style: str, most: int
) -> None:
    if style == "x" and not scale.long:
        pytest.skip("apart from their names, these headers are the standard ones; only the long form tries them")
    eval_ids = evaluations(150)
    async with running_cluster(tmp_path / "stage", DOCV_RATE="100") as cluster:
        cluster.riskos.change(rate=25, header_style=style)
        await cluster.start_workers(2)
        began = time.monotonic()
        await cluster.enqueue(eval_ids, run=_RUN)
        await cluster.wait_until_all_ended(_RUN, len(eval_ids))
        seconds, refused = time.monotonic() - began, cluster.riskos.stats().refused_by_rate
    figures(
        f"100/s requested, 25/s granted, headers: {style}: {refused} 429s over 150 evaluations, {150 / seconds:.0f}/s"
    )
    assert refused <= most


async def test_a_manual_hold_stops_all_requests_and_ends_at_once_when_released(tmp_path: Path) -> None:
    eval_ids = evaluations(200)
    async with running_cluster(tmp_path / "stage", DOCV_RATE="100", DOCV_LEASE_SECONDS="600") as cluster:
        worker, _ = await cluster.start_workers(2)
        await cluster.enqueue(eval_ids, run=_RUN, queue=Queue.BACKFILL)
        await Holds(cluster.client).place_manual("default", "the auditors are here")
        while (stats := await cluster.ledger.get_stats()).leased or any(stats.queued.values()):
            await asyncio.sleep(0.1)
        requests, memory = cluster.riskos.stats().requests, await cluster.client.info("memory")
        await asyncio.sleep(3)
        assert cluster.riskos.stats().requests == requests
        assert (await cluster.client.info("memory"))["used_memory"] <= memory["used_memory"] + 1_000_000
        assert sum((await cluster.ledger.get_stats()).held.values()) == 200 - await cluster.count_ended(_RUN)
        assert await count_lost_attempts(cluster) == 0
        assert await cluster.terminate(worker) < 15
        assert worker.process.returncode == 0
        await Holds(cluster.client).end("default")
        await cluster.wait_until_all_ended(_RUN, len(eval_ids))


async def test_only_evaluations_that_always_fail_become_dead_letters_and_a_redrive_archives_them(
    scale: Scale, figures: Callable[[str], None], tmp_path: Path
) -> None:
    total = 1000 if scale.long else 200
    eval_ids = [eval_id_for(_scenario_of(number), number) for number in range(total)]
    bad = {eval_id for number, eval_id in enumerate(eval_ids) if _scenario_of(number) is Scenario.ERROR_500_ALWAYS}
    async with running_cluster(tmp_path / "stage", DOCV_ATTEMPTS="3") as cluster:
        await cluster.start_workers(2)
        await cluster.enqueue(eval_ids, run=_RUN, queue=Queue.BACKFILL)
        await cluster.wait_until_all_ended(_RUN, total)
        dead = {letter.eval_id async for letter in cluster.ledger.dead_letters.iterate()}
        cluster.riskos.change(mended=True)
        assert set(await cluster.ledger.dead_letters.redrive(sorted(dead))) == dead
        counters = await cluster.wait_until_all_ended(_RUN, total)
        left = [letter async for letter in cluster.ledger.dead_letters.iterate()]
    figures(
        f"{len(bad)} of {total} always 500: {len(dead)} dead letters, {len(dead ^ bad)} of them wrong or missing; "
        f"after a fix and a redrive {len(left)} left, {counters.outcomes[Outcome.ARCHIVED]} archived"
    )
    assert dead == bad
    assert left == []
    assert counters.outcomes[Outcome.ARCHIVED] == total


def _scenario_of(number: int) -> Scenario:
    return Scenario.ERROR_500_ALWAYS if number % 20 == 7 else Scenario.PASSPORT
