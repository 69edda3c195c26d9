"""A producer that submits evaluations over HTTP, one after the other, and remembers which were accepted."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator

import aiohttp

from scripts.simulator.scenarios import Scenario, eval_id_for
from tests.faults.cluster import Cluster

INTAKE_TOKEN = "token-of-a-producer"
_LOGIN = {"Authorization": f"Bearer {INTAKE_TOKEN}"}


class Producer:
    """Submits evaluations one after the other, and remembers which of them were accepted."""

    def __init__(self, cluster: Cluster, http: aiohttp.ClientSession, url: str) -> None:
        self._cluster, self._http, self._url = cluster, http, url
        self._numbers = itertools.count()
        self.accepted: list[str] = []

    async def run(self) -> None:
        """Submit evaluations until cancelled."""
        while True:
            await self.submit()
            await asyncio.sleep(0.05)

    async def submit(self) -> bool:
        """Submit one evaluation; return whether it was accepted."""
        eval_id = eval_id_for(Scenario.PASSPORT, next(self._numbers))
        async with self._http.post(f"{self._url}/evaluations", json={"eval_ids": [eval_id]}) as response:
            accepted = response.status == 202
        if accepted:
            self.accepted.append(eval_id)
        return accepted

    async def is_ready(self) -> bool:
        """Return whether ``/readyz`` answers 200."""
        async with self._http.get(f"{self._url}/readyz") as response:
            return response.status == 200

    def is_archived(self, eval_id: str) -> bool:
        """Return whether the archive has an evaluation."""
        return any(self._cluster.archive.glob(f"*/{eval_id}/manifest.json"))

    async def wait_until_archived(self, since: int, seconds: float) -> None:
        """Wait until one of the evaluations that were accepted after the first ``since`` is archived."""
        async with asyncio.timeout(seconds):
            while not any(map(self.is_archived, self.accepted[since:])):
                await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def producing(cluster: Cluster) -> AsyncIterator[Producer]:
    """Submit evaluations to a server until the block ends."""
    server = await cluster.start_worker("scripts.cli", "serve", "--port", "0")
    await cluster.wait_until(lambda: b"listens at" in server.beginning or not server.is_alive)
    assert server.is_alive, server.log.read_text()
    url = server.beginning.decode().partition("listens at ")[2].split()[0]
    async with aiohttp.ClientSession(headers=_LOGIN) as http:
        producer = Producer(cluster, http, url)
        running = asyncio.create_task(producer.run())
        try:
            yield producer
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
