"""One simulator with several keys: each is a separate account."""

import aiohttp
import pytest

from scripts.simulator.options import SimulatorOptions
from scripts.simulator.scenarios import Scenario, eval_id_for
from scripts.simulator.server import Simulator, start_simulator
from tests.scripts.simulator.conftest import KEY, Client

OTHER = "another-key"
PLAIN = eval_id_for(Scenario.DOCUMENTED, 1)


async def statuses(simulator: Simulator, *keys: str) -> list[int]:
    async with aiohttp.ClientSession() as http:
        client = Client(simulator, http)
        return [(await client.get_documents(PLAIN, key)).status for key in keys]


async def test_a_change_of_one_key_does_not_affect_the_other() -> None:
    async with await start_simulator(SimulatorOptions(api_key=KEY), [OTHER]) as simulator:
        simulator.change(OTHER, refuse_with=403)
        assert await statuses(simulator, KEY, OTHER, "no-key", OTHER) == [200, 403, 401, 403]
        assert (simulator.stats().granted, simulator.stats(OTHER).requests) == (1, 2)


@pytest.mark.parametrize(("one_rate", "third"), [(False, 200), (True, 429)])
async def test_keys_share_their_quota_only_with_one_rate(one_rate: bool, third: int) -> None:  # noqa: FBT001
    async with await start_simulator(SimulatorOptions(api_key=KEY, quota=2), [OTHER], one_rate=one_rate) as simulator:
        assert await statuses(simulator, KEY, KEY, OTHER, KEY) == [200, 200, third, 429]


async def test_a_control_request_changes_the_key_that_it_names() -> None:
    async with (
        await start_simulator(SimulatorOptions(api_key=KEY), [OTHER]) as simulator,
        aiohttp.ClientSession() as http,
    ):
        client = Client(simulator, http)
        assert (await client.send("POST", f"/__control?key={OTHER}", body={"refuse_with": 500})).status == 204
        assert (await client.send("POST", "/__control?key=no-such-key", body={"refuse_with": 500})).status == 404
        assert await statuses(simulator, KEY, OTHER) == [200, 500]
