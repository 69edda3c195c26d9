"""A running simulator and its client."""

import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

import aiohttp
import pytest

from scripts.simulator.options import SimulatorOptions
from scripts.simulator.server import Simulator, start_simulator

KEY = "a key of the tests"


@dataclass(frozen=True)
class Response:
    """A response: the status, the headers and the whole body."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def named_for(self) -> str:
        """The evaluation in the filename."""
        found = re.fullmatch(r"attachment; filename=(.{36})_document\.zip", self.headers["Content-Disposition"])
        assert found
        return found[1]


class Client:
    """Sends requests to one simulator, with the right key by default."""

    def __init__(self, simulator: Simulator, http: aiohttp.ClientSession) -> None:
        self.simulator = simulator
        self._http = http

    async def send(self, method: str, path: str, key: str | None = KEY, body: object = None) -> Response:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        url = self.simulator.url + path
        async with self._http.request(method, url, headers=headers, json=body, allow_redirects=False) as response:
            return Response(response.status, response.headers, await response.read())

    async def get_documents(self, eval_id: str, key: str | None = KEY) -> Response:
        return await self.send("GET", f"/api/evaluation/{eval_id}/documents", key)


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    options = SimulatorOptions(api_key=KEY, slow_seconds=0.2)
    async with await start_simulator(options) as simulator, aiohttp.ClientSession() as http:
        yield Client(simulator, http)
