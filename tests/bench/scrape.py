"""Measure how long a scrape takes after a million outcomes: `python -m tests.bench.scrape`.

It counts outcomes as a worker does, reads the page from a worker's server many times, and prints the times.
"""

import asyncio
import random
import statistics
import tempfile
import time
import urllib.request
from pathlib import Path

from tasks.consumer.system_metrics import SystemMetrics
from tasks.model.account import DEFAULT_ACCOUNT, Allowance
from tasks.model.job import Queue
from tasks.model.outcome import NoDocumentsReason, Outcome
from tasks.resilience.retry import CAUSES
from worker.clients.embedded_redis import embedded_redis
from worker.clients.redis import open_redis
from worker.metrics.server import serve_metrics
from worker.metrics.shared_metrics import SharedMetrics
from worker.metrics.worker_metrics import (
    REGISTRY,
    Step,
    count_failed_attempt,
    count_outcome,
    count_request,
    count_uploaded,
    observe_live_lag,
    observe_step,
    preset_labels,
)

_OUTCOMES = 1_000_000
_TIMES = 300
_ACCOUNTS = {DEFAULT_ACCOUNT: Allowance(daily_quota=1_000)}


def main() -> None:
    """Measure, and print the results."""
    preset_labels(outcomes=tuple(Outcome), queues=tuple(Queue), causes=CAUSES, reasons=tuple(NoDocumentsReason))
    began = time.monotonic()
    for number in range(_OUTCOMES):
        _count_one_outcome(number)
    each = (time.monotonic() - began) / _OUTCOMES
    with tempfile.TemporaryDirectory() as folder, embedded_redis(Path(folder)) as redis:
        took, series, reads = asyncio.run(_scrapes(redis.url))
    print(f"counting an outcome with its steps: {each * 1e6:.1f} µs")  # noqa: T201  # the result of the program
    print(f"a scrape after {_OUTCOMES:,} outcomes, {series} series: {_format_times(took)}")  # noqa: T201
    print(f"in one of them each 5 s, reading Redis: {_format_times(reads)}")  # noqa: T201


def _format_times(took: list[float]) -> str:
    ranked = sorted(took)
    return f"p50 {statistics.median(ranked) * 1e3:.1f} ms, p99 {ranked[int(len(ranked) * 0.99)] * 1e3:.1f} ms"


def _count_one_outcome(number: int) -> None:
    for step in Step:
        observe_step(step, random.random())  # noqa: S311  # not a secret
    count_request(200, 700_000)
    count_uploaded(700_000)
    count_outcome(Outcome.ARCHIVED, Queue.LIVE)
    observe_live_lag(15.0)
    if number % 100 == 0:
        count_failed_attempt(CAUSES[number // 100 % len(CAUSES)])


async def _scrapes(redis_url: str) -> tuple[list[float], int, list[float]]:
    """Return the seconds of each scrape, the number of series, and the seconds of each reading of Redis."""
    async with open_redis(redis_url, 1) as redis:
        read = SystemMetrics(redis, _ACCOUNTS).collect
        REGISTRY.register(SharedMetrics(read, asyncio.get_running_loop()))
        with serve_metrics(REGISTRY, lambda: None, "127.0.0.1", 0) as url:
            took = [await asyncio.to_thread(_scrape, f"{url}/metrics") for _ in range(_TIMES)]
            page = await asyncio.to_thread(_page, f"{url}/metrics")
        reads = []
        for _ in range(_TIMES):
            began = time.monotonic()
            await read()
            reads.append(time.monotonic() - began)
    return took, sum(not line.startswith("#") for line in page.splitlines()), reads


def _scrape(url: str) -> float:
    began = time.monotonic()
    _page(url)
    return time.monotonic() - began


def _page(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310  # our own server
        return str(answer.read().decode())


if __name__ == "__main__":
    main()
