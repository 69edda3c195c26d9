"""A worker's figures on a port of their own."""

import asyncio
import contextlib
import urllib.error
import urllib.request
from collections.abc import AsyncIterator

import pytest

from tests.counting import Counted, current, samples
from worker.clients.errors import ServiceUnavailable
from worker.metrics.server import MetricsServer
from worker.metrics.shared_metrics import Found, Look
from worker.metrics.worker_metrics import REGISTRY, count_uploaded


@contextlib.asynccontextmanager
async def looking() -> AsyncIterator[Look]:
    async def look() -> Found:
        return {"docv_dead_letters": {(): 2}}

    yield look


def get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=20) as answer:  # noqa: S310
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_figures_of_this_process_and_of_all_are_on_one_page(counted: Counted) -> None:
    server = MetricsServer(REGISTRY, looking, lambda: None)
    url = server.start("127.0.0.1", 0)
    try:
        count_uploaded(7)
        status, page = get(f"{url}/metrics")
        assert get(f"{url}/livez") == (200, "alive\n")
        assert get(f"{url}/other")[0] == 404
    finally:
        server.close()
    found = samples(page)
    assert (status, found["docv_dead_letters"]) == (200, 2)
    assert found["docv_uploaded_bytes_total"] == current()["docv_uploaded_bytes_total"]
    assert counted["docv_uploaded_bytes_total"] == 7
    assert found["docv_redis_up"] == 1


async def test_a_worker_whose_loop_stands_still_can_say_so() -> None:
    server = MetricsServer(REGISTRY, looking, lambda: "its event loop has not moved for 31 s")
    url = server.start("127.0.0.1", 0)
    try:
        # Nothing else gets to run on this test's loop meanwhile.
        assert get(f"{url}/livez") == (503, "its event loop has not moved for 31 s\n")
    finally:
        await asyncio.to_thread(server.close)


def test_an_address_in_use_is_one_sentence_that_says_what_to_do() -> None:
    first = MetricsServer(REGISTRY, looking, lambda: None)
    url = first.start("127.0.0.1", 0)
    port = int(url.rpartition(":")[2])
    try:
        with pytest.raises(
            ServiceUnavailable, match=f"127.0.0.1:{port} cannot be listened on .*DOCV_METRICS_PORT"
        ) as refused:
            MetricsServer(REGISTRY, looking, lambda: None).start("127.0.0.1", port)
        assert "\n" not in str(refused.value)
    finally:
        first.close()
    second = MetricsServer(REGISTRY, looking, lambda: None)
    assert second.start("127.0.0.1", port) == url
    second.close()


def test_what_cannot_be_opened_is_told_to_whoever_starts() -> None:
    @contextlib.asynccontextmanager
    async def cannot() -> AsyncIterator[Look]:
        raise ServiceUnavailable("there is no Redis")
        yield

    with pytest.raises(ServiceUnavailable, match="there is no Redis"):
        MetricsServer(REGISTRY, cannot, lambda: None).start("127.0.0.1", 0)
