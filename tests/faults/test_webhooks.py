"""Events arrive, many of them twice, while Redis crashes: each answered with 200 is archived with one request."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import aiohttp

from scripts.simulator.scenarios import Scenario, eval_id_for
from tests.faults.cluster import Cluster, Worker, running_cluster
from tests.faults.scale import Scale

_SECRET = "secret-of-the-webhook"
_CLIENTS = 32
_TWICE, _CHANGED = 0.2, 0.01
Event = dict[str, object]


def event(number: int, event_type: str = "evaluation_completed") -> Event:
    data = {"eval_id": eval_id_for(Scenario.PASSPORT, number), "environment_name": "Sandbox", "name": "Erika"}
    return {"event_id": f"{event_type}-{number}", "event_type": event_type, "data": data}


def deliveries(count: int, dice: random.Random) -> list[Event]:
    """Return events in the order of their delivery: some are repeated later, and a few evaluations change."""
    first = [event(number) for number in range(count)]
    again = [event(number) for number in range(count) if dice.random() < _TWICE]
    changed = [event(number, "case_attachment_added") for number in range(count) if dice.random() < _CHANGED]
    # Repeated and changed events come at some place after the original.
    placed = [(number + 0.0, each) for number, each in enumerate(first)]
    placed += [(dice.uniform(number_of(each), count), each) for each in (*again, *changed)]
    return [each for _, each in sorted(placed, key=lambda pair: pair[0])]


def number_of(delivered: Event) -> int:
    return int(str(delivered["event_id"]).rpartition("-")[2])


class RiskOS:
    """Delivers events until each was answered with 200."""

    def __init__(self, url: str, events: list[Event]) -> None:
        self._url = url
        self._waiting: Iterator[Event] = iter(events)
        self.statuses: Counter[int] = Counter()
        self.delivered = 0

    async def deliver_all(self) -> None:
        async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {_SECRET}"}) as session:
            await asyncio.gather(*(self._deliver(session) for _ in range(_CLIENTS)))

    async def _deliver(self, session: aiohttp.ClientSession) -> None:
        for each in self._waiting:
            while (status := await self._post(session, each)) != 200:
                self.statuses[status] += 1
                await asyncio.sleep(0.1)
            self.statuses[status] += 1
            self.delivered += 1

    async def _post(self, session: aiohttp.ClientSession, each: Event) -> int:
        async with session.post(self._url, json=each) as answer:
            return answer.status


async def serve(cluster: Cluster) -> tuple[Worker, str]:
    """Start the server; return the process and the address of the webhook."""
    server = await cluster.start_worker("scripts.cli", "serve", "--port", "0")
    await cluster.wait_until(lambda: b"listens at" in server.beginning or not server.is_alive)
    assert server.is_alive, server.log.read_text()
    url = server.beginning.decode().partition("listens at ")[2].split()[0]
    return server, f"{url}/webhooks/riskos"


async def test_an_event_answered_with_200_is_archived_with_one_request(
    scale: Scale, figures: Callable[[str], None], tmp_path: Path
) -> None:
    count, crashes = (80_000, 2) if scale.long else (500, 2)
    events = deliveries(count, random.Random(5))  # noqa: S311
    settings = {"DOCV_WEBHOOK_SECRETS": _SECRET, "DOCV_SETTLE_SECONDS": "1"}
    began = time.monotonic()
    async with running_cluster(tmp_path / "stage", **settings) as cluster:
        server, url = await serve(cluster)
        await cluster.start_workers(2)
        riskos = RiskOS(url, events)
        delivering = asyncio.create_task(riskos.deliver_all())
        for crash in range(1, crashes + 1):
            await cluster.wait_until(lambda done=crash: riskos.delivered >= len(events) * done // (crashes + 1), 600)
            await cluster.redis.kill()
            await asyncio.sleep(scale.down / 10 if scale.long else scale.down)
            await cluster.redis.start()
        await delivering
        seconds = time.monotonic() - began
        await wait_until_empty(cluster, 1200 if scale.long else 100)
        archived = sum(1 for _ in cluster.archive.glob("sandbox/*/manifest.json"))
        requests = cluster.riskos.stats().by_evaluation
        alive = server.is_alive and all(worker.is_alive for worker in cluster.workers)
        logs = b"".join(worker.log.read_bytes() for worker in cluster.workers)
    changed = Counter(
        eval_id_for(Scenario.PASSPORT, number_of(each))
        for each in events
        if each["event_type"] == "case_attachment_added"
    )
    too_often = {eval_id: times for eval_id, times in requests.items() if times > 1 + changed[eval_id]}
    figures(
        f"webhook: {len(events):,} events of {count:,} evaluations, {riskos.statuses[503]:,} answered 503 while Redis "
        f"was killed {crashes} times, {riskos.statuses[200]:,} answered 200; {archived:,} archived, "
        f"{len(too_often)} requested too often; {seconds:.0f} s to deliver"
    )
    assert archived == count
    assert alive
    assert set(riskos.statuses) <= {200, 503}
    assert riskos.statuses[503]
    assert not too_often
    assert b"Erika" not in logs


async def wait_until_empty(cluster: Cluster, seconds: float) -> None:
    """Wait until nothing is in flight any more, including repeated requests."""
    async with asyncio.timeout(seconds):
        while await cluster.client.hlen("docv:ledger:entries"):
            await asyncio.sleep(0.2)
