"""Several accounts in one process: each keeps its own rate, and a hold of one does not delay the others."""

import asyncio
import json
import time
from pathlib import Path

from scripts.simulator.scenarios import Scenario, eval_id_for
from tasks.model.job import Queue
from tasks.model.outcome import Outcome
from tasks.resilience.holds import Holds, Reason
from tests.commands import KEY, Shell
from tests.faults.cluster import Cluster, running_cluster
from tests.faults.watching import count_lost_attempts, wait_until_half_ended, wait_until_held

KYB = "key-of-the-other-account"


def evaluations(count: int, scenario: Scenario = Scenario.PASSPORT) -> list[str]:
    return [eval_id_for(scenario, number) for number in range(count)]


def accounts_in(folder: Path, table: str, *more: str) -> str:
    """Write a file with the account kyb and further lines; return the file."""
    file = folder / "accounts.toml"
    file.write_text("\n".join([f'[kyb]\napi_key = "{KYB}"\n{table}', *more]))
    file.chmod(0o600)
    return str(file)


def manifest_of(cluster: Cluster, environment: str, eval_id: str) -> dict[str, object]:
    found: dict[str, object] = json.loads((cluster.archive / environment / eval_id / "manifest.json").read_text())
    return found


async def test_two_accounts_archive_at_once_each_within_its_rate_and_in_its_environment(tmp_path: Path) -> None:
    ours, theirs = evaluations(60), evaluations(60, Scenario.FLAT)
    file = accounts_in(tmp_path, 'environment = "production"\nrate = 0.5\ndaily_quota = 100000')
    async with running_cluster(tmp_path / "stage", keys=[KYB], DOCV_RATE="20", DOCV_ACCOUNTS=file) as cluster:
        await cluster.start_workers(2)
        began = time.monotonic()
        await cluster.enqueue(theirs, run="theirs", queue=Queue.BACKFILL, account="kyb")
        await cluster.enqueue(ours, run="ours", queue=Queue.BACKFILL)
        await cluster.wait_until_all_ended("ours", len(ours), seconds=100)
        requests, seconds = cluster.riskos.stats(KYB).requests, time.monotonic() - began
        left = (await cluster.ledger.runs.get_counters("theirs")).pending
        faster = await Shell(tmp_path, cluster.settings).run("rate", "100", "--account", "kyb")
        await cluster.wait_until_all_ended("theirs", len(theirs))
        assert await count_lost_attempts(cluster) == 0
    # If they ran one after the other, at most the 16 in flight would remain of the first.
    assert left > 2 * 16, "the faster run waited for the run that was enqueued first"
    # These bounds also hold on a slow machine.
    assert requests <= 1 + seconds * 0.5
    assert seconds >= (len(ours) - 1) / 20
    assert faster.code == 0, faster.err
    assert (cluster.riskos.stats().requests, cluster.riskos.stats(KYB).requests) == (60, 60)
    of_ours, of_theirs = manifest_of(cluster, "sandbox", ours[0]), manifest_of(cluster, "production", theirs[0])
    assert (of_ours["account"], of_ours["environment"]) == ("default", "sandbox")
    assert (of_theirs["account"], of_theirs["environment"]) == ("kyb", "production")


async def test_a_refused_key_holds_only_its_account_until_it_is_resumed(tmp_path: Path) -> None:
    ours, theirs = evaluations(100), evaluations(100, Scenario.FLAT)
    async with running_cluster(
        tmp_path / "stage", keys=[KYB], DOCV_RATE="100", DOCV_ACCOUNTS=accounts_in(tmp_path, "")
    ) as cluster:
        await cluster.start_workers(2)
        await cluster.enqueue(theirs, run="theirs", queue=Queue.BACKFILL, account="kyb")
        await wait_until_half_ended(cluster, "theirs", len(theirs))
        cluster.riskos.change(KYB, refuse_with=401)
        await wait_until_held(cluster, Reason.UNAUTHORIZED, scope="kyb")
        await cluster.enqueue(ours, run="ours", queue=Queue.BACKFILL)
        await cluster.wait_until_all_ended("ours", len(ours))
        assert await Holds(cluster.client).get("default") is None
        refused = cluster.riskos.stats(KYB).by_status[401]
        assert refused <= 16, "at most the requests in flight"
        assert await count_lost_attempts(cluster) == 0
        stats = await cluster.ledger.get_stats()
        assert stats.held_by_account == {"kyb": sum(stats.held.values())}
        cluster.riskos.change(KYB, refuse_with=None)
        resumed = await Shell(tmp_path, cluster.settings).run("resume", "--account", "kyb")
        assert (resumed.code, resumed.out.partition(" continues")[0]) == (0, "account kyb")
        counters = await cluster.wait_until_all_ended("theirs", len(theirs))
    assert counters.outcomes[Outcome.ARCHIVED] == len(theirs)


async def test_accounts_that_share_a_rate_do_not_exceed_it_together(tmp_path: Path) -> None:
    ours, theirs = evaluations(60), evaluations(60, Scenario.FLAT)
    file = accounts_in(tmp_path, 'shares_rate_with = "default"')
    async with running_cluster(tmp_path / "stage", keys=[KYB], DOCV_RATE="20", DOCV_ACCOUNTS=file) as cluster:
        await cluster.start_workers(2)
        began = time.monotonic()
        await cluster.enqueue(ours, run="ours")
        await cluster.enqueue(theirs, run="theirs", account="kyb")
        await cluster.wait_until_all_ended("ours", len(ours))
        await cluster.wait_until_all_ended("theirs", len(theirs))
        seconds = time.monotonic() - began
        requests = [cluster.riskos.stats(key).granted for key in (KEY, KYB)]
        used = await cluster.client.hget("docv:quota:default", "used")
    assert requests == [60, 60]
    assert seconds >= (120 - 1) / 20, "together they went faster than their rate; a slow machine only takes longer"
    assert int(used or 0) == 120


async def test_evaluations_of_an_unknown_account_wait_for_a_worker_that_knows_it(tmp_path: Path) -> None:
    theirs = evaluations(20)
    async with running_cluster(tmp_path / "stage", keys=[KYB]) as cluster:
        (worker,) = await cluster.start_workers(1)
        await cluster.enqueue(theirs, run="theirs", account="kyb")
        async with asyncio.timeout(90):
            while (await cluster.ledger.get_stats()).held_by_account != {"kyb": len(theirs)}:
                await asyncio.sleep(0.05)
        log = worker.log.read_text()
        assert log.count("account.unknown") == 1
        assert await count_lost_attempts(cluster) == 0
        shell = Shell(tmp_path, cluster.settings)
        assert json.loads((await shell.run("status", "--json")).out)["unknown_accounts"] == {"kyb": len(theirs)}
        examined = json.loads((await shell.run("doctor", "--json")).out)["findings"]
        assert [each["state"] for each in examined if each["what"] == "account kyb"] == ["wrong"]
        since = await cluster.client.zrange("docv:ledger:held:live:kyb", 0, -1, withscores=True)
        await asyncio.sleep(2.5)
        later = await cluster.client.zrange("docv:ledger:held:live:kyb", 0, -1, withscores=True)
        assert later == since, "they were held again and again"
        cluster.settings["DOCV_ACCOUNTS"] = accounts_in(tmp_path, "")
        await cluster.start_workers(1)
        counters = await cluster.wait_until_all_ended("theirs", len(theirs))
    assert counters.outcomes[Outcome.ARCHIVED] == len(theirs)
